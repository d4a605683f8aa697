import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  fromBinary,
  fromJson,
  toBinary,
  toJson,
  type DescField,
  type DescMessage,
  type DescMethod,
  type JsonValue,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import {
  Metadata,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type status,
  type StatusObject,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { invalidFields, type FieldViolation, type HubError } from '#lib/errors.ts';
import { bytesIn } from '#lib/rpc/raw-body.ts';
import { decodeViolations, toStatus } from '#lib/rpc/status.ts';

/** The descriptor set of the services in test/protos. */
export const descriptorSet = new URL('protos/descriptors.binpb', import.meta.url).pathname;
export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet)));

/** A call as it arrived. */
export interface EchoCall {
  /** The RPC's name. */
  method: string;
  /** The request, of a stream its first message, as protobuf-es prints it (canonical ProtoJSON). */
  request: JsonValue;
  metadata: Metadata;
  deadline: number;
}

/** An upload as far as it has arrived. */
export interface EchoUpload extends EchoCall {
  stream: ServerReadableStream<Buffer, Buffer>;
  /** How many bytes of the body are in each message, the first one included. */
  pieces: number[];
  /** Whether its end has come, as that of a body which is whole. */
  isWhole: boolean;
  isCancelled: boolean;
  answer: sendUnaryData<Buffer>;
}

/** A stream of messages from a client, as far as it has arrived. */
export interface EchoStream {
  /** How many messages have come. */
  messages: number;
  /** Whether the end of the messages has come, as that of a stream which is whole. */
  isWhole: boolean;
  isCancelled: boolean;
  /** Ends the call. */
  fail(status: Partial<StatusObject>): void;
  /** Takes no more messages, or takes them again. */
  pause(): void;
  resume(): void;
  /** Sends a message, of a stream in both directions. */
  say(message: Buffer): void;
}

type Handler = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;

/**
 * A gRPC server that answers each call of test/protos with the request, an upload with what it received, a download with
 * `hello`, and streams of messages with what they are asked for.
 */
export interface EchoBackend {
  /** host:port. */
  address: string;
  /** What arrived, oldest first. */
  calls: EchoCall[];
  /** The streams among them that carry a body. */
  uploads: EchoUpload[];
  /** The streams of messages that clients have sent, of RPCs of StreamService. */
  streams: EchoStream[];
  /** What the server finds wrong with every request, as validation rules would. */
  violations: FieldViolation[];
  /** Answers calls in place of the echo. */
  handler: Handler | undefined;
  /** Is told of each upload after its first message, before it asks for more. Returns whether it is to answer itself. */
  receiver: ((upload: EchoUpload) => boolean) | undefined;
  /** Sends downloads in place of the greeting. */
  sender: ((call: ServerWritableStream<Buffer, Buffer>) => void) | undefined;
  /** Answers a call with the echo, and with a trailer. */
  echo(call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>, trailer?: Metadata): void;
  health: HealthImplementation;
  stop(): void;
}

/** Starts a backend on a free port, or on the one given. */
export async function startEchoBackend(port = 0): Promise<EchoBackend> {
  const server = new Server();
  const health = new HealthImplementation({ '': 'SERVING', database: 'SERVING', store: 'SERVING' });
  health.addToServer(server);
  const backend: EchoBackend = {
    address: '',
    calls: [],
    uploads: [],
    streams: [],
    violations: [],
    handler: undefined,
    receiver: undefined,
    sender: undefined,
    health,
    echo: (call, callback, trailer) => echo(call, callback, trailer),
    stop: () => server.forceShutdown(),
  };
  for (const type of registry) {
    if (type.kind !== 'service' || !type.typeName.startsWith('transcoding.')) continue;
    const definition: Record<string, unknown> = {};
    const handlers: Record<string, UntypedServiceImplementation[string]> = {};
    for (const method of type.methods) {
      const { methodKind } = method;
      definition[method.name] = {
        path: `/${type.typeName}/${method.name}`,
        requestStream: methodKind === 'client_streaming' || methodKind === 'bidi_streaming',
        responseStream: methodKind === 'server_streaming' || methodKind === 'bidi_streaming',
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      };
      if (type.name === 'StreamService') handlers[method.name] = streamHandler(backend, method);
      else if (methodKind === 'client_streaming') handlers[method.name] = uploadHandler(backend, method);
      else if (methodKind === 'server_streaming') handlers[method.name] = downloadHandler(backend, method);
      else handlers[method.name] = unaryHandler(backend, method);
    }
    server.addService(definition as unknown as ServiceDefinition, handlers);
  }
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, actual) =>
      error ? reject(error) : resolve(actual),
    );
  });
  backend.address = `127.0.0.1:${bound}`;
  return backend;
}

type AnyCall = Pick<ServerUnaryCall<Buffer, Buffer>, 'metadata' | 'getDeadline'>;

function callOf(method: DescMethod, request: Buffer, call: AnyCall): EchoCall {
  return {
    method: method.name,
    request: toJson(method.input, fromBinary(method.input, request), { registry }),
    metadata: call.metadata,
    deadline: Number(call.getDeadline()),
  };
}

/** All that is wrong with a request. */
function violationsOf(backend: EchoBackend, { metadata }: AnyCall): Partial<StatusObject> | undefined {
  const [found] = metadata.get('x-field-violations-bin');
  const fields = [...(found === undefined ? [] : decodeViolations(found as Buffer)), ...backend.violations];
  return fields.length > 0 ? { ...toStatus(invalidFields(fields)) } : undefined;
}

function unaryHandler(backend: EchoBackend, method: DescMethod): Handler {
  return (call, callback) => {
    backend.calls.push(callOf(method, call.request, call));
    const wrong = violationsOf(backend, call);
    if (wrong !== undefined) callback(wrong);
    else if (backend.handler !== undefined) backend.handler(call, callback);
    else echo(call, callback);
  };
}

const methods = new Map(
  [...registry]
    .filter((type) => type.kind === 'service')
    .flatMap(({ typeName, methods }) => methods.map((method) => [`/${typeName}/${method.name}`, method])),
);

function echo(call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>, trailer?: Metadata): void {
  const method = methods.get(call.getPath()) as DescMethod;
  const { input, output } = method;
  let answer: Buffer = Buffer.alloc(0);
  if (input === output) answer = call.request;
  else if (method.name === 'Fetch')
    answer = httpBody(output, (callOf(method, call.request, call).request as Wish).name);
  callback(null, answer, trailer);
}

function uploadHandler(backend: EchoBackend, method: DescMethod) {
  const field = method.input.field['data'] as DescField;
  return (call: ServerReadableStream<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => {
    const hash = createHash('sha256');
    const pieces: number[] = [];
    let upload: EchoUpload | undefined;
    let isEchoed = true;
    // A call that is cancelled is seen by its own event.
    call.on('error', () => {});
    call.on('cancelled', () => {
      if (upload !== undefined) upload.isCancelled = true;
    });
    call.on('data', (bytes: Buffer) => {
      const data = bytesIn(field, bytes);
      pieces.push(data?.length ?? 0);
      if (data !== undefined) hash.update(data);
      if (upload !== undefined) return;
      upload = { ...callOf(method, bytes, call), stream: call, pieces, isWhole: false, isCancelled: false, answer };
      backend.calls.push(upload);
      backend.uploads.push(upload);
      const wrong = violationsOf(backend, call);
      if (wrong !== undefined) answer(wrong);
      isEchoed = wrong === undefined && backend.receiver?.(upload) !== true;
      if (isEchoed) call.sendMetadata(new Metadata());
    });
    call.on('end', () => {
      if (upload === undefined || call.cancelled) return;
      upload.isWhole = true;
      if (!isEchoed) return;
      const { name = '' } = upload.request as { name?: string };
      const size = pieces.reduce((sum, length) => sum + length, 0);
      answer(null, encode(method.output, { name, size, sha256: hash.digest('hex') }));
    });
  };
}

function downloadHandler(backend: EchoBackend, method: DescMethod) {
  return (call: ServerWritableStream<Buffer, Buffer>) => {
    backend.calls.push(callOf(method, call.request, call));
    const wrong = violationsOf(backend, call);
    if (wrong !== undefined) {
      call.emit('error', wrong);
    } else if (backend.sender !== undefined) {
      backend.sender(call);
    } else {
      call.write(content({ contentType: 'text/plain', length: 5, etag: 'abc' }));
      call.write(content({}, Buffer.from('hello')));
      call.end();
    }
  };
}

/** transcoding.v1.StreamWish. */
interface Wish {
  name?: string;
  count?: number;
  code?: number;
  reason?: string;
}

function httpBody(type: DescMessage, text = ''): Buffer {
  return encode(type, { contentType: 'text/plain', data: Buffer.from(text).toString('base64') });
}

function streamHandler(backend: EchoBackend, method: DescMethod): UntypedServiceImplementation[string] {
  const { output } = method;
  if (method.methodKind === 'server_streaming') {
    return (call: ServerWritableStream<Buffer, Buffer>) => {
      const seen = callOf(method, call.request, call);
      backend.calls.push(seen);
      if (backend.sender !== undefined) {
        backend.sender(call);
        return;
      }
      const { name = '', count = 0, code = 0, reason = '' } = seen.request as Wish;
      for (let index = 0; index < count; index++) {
        const isBody = output.typeName === 'google.api.HttpBody';
        const nested = { name, count: index };
        call.write(isBody ? httpBody(output, `${name} ${index}`) : encode(output, { textValue: name, nested }));
      }
      if (code === 0) call.end();
      else call.emit('error', { code, details: reason });
    };
  }
  if (method.methodKind === 'bidi_streaming') {
    return (call: ServerDuplexStream<Buffer, Buffer>) => {
      watchStream(
        backend,
        call,
        (status) => call.emit('error', status),
        (message) => call.write(message),
      );
      call.on('data', (message: Buffer) => {
        backend.calls.push(callOf(method, message, call));
        call.write(message);
      });
      call.on('end', () => call.end());
    };
  }
  return (call: ServerReadableStream<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => {
    const children: JsonValue[] = [];
    watchStream(backend, call, answer);
    call.on('data', (message: Buffer) => {
      const seen = callOf(method, message, call);
      backend.calls.push(seen);
      children.push(seen.request);
    });
    call.on('end', () => {
      if (!call.cancelled) answer(null, encode(output, { children, int32Value: children.length }));
    });
  };
}

function watchStream(
  backend: EchoBackend,
  call: ServerReadableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
  fail: EchoStream['fail'],
  say: EchoStream['say'] = () => {
    throw new Error('This stream has one answer');
  },
): void {
  const pause = () => void call.pause();
  const resume = () => void call.resume();
  const stream: EchoStream = { messages: 0, isWhole: false, isCancelled: false, fail, say, pause, resume };
  backend.streams.push(stream);
  call.on('error', () => {});
  call.on('data', () => (stream.messages += 1));
  call.on('end', () => (stream.isWhole = true));
  call.on('cancelled', () => (stream.isCancelled = true));
}

/** The bytes of a message from its ProtoJSON. */
export function encode(type: DescMessage, json: JsonValue): Buffer {
  return Buffer.from(toBinary(type, fromJson(type, json)));
}

/** The bytes of a transcoding.v1.RawContent. */
export function content(fields: Record<string, JsonValue>, data?: Buffer): Buffer {
  const type = registry.getMessage('transcoding.v1.RawContent') as DescMessage;
  return encode(type, data === undefined ? fields : { ...fields, data: data.toString('base64') });
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

/** Answers every call with an error. */
export function failing(error: HubError): Handler {
  return (_call, callback) => callback({ ...toStatus(error) });
}

/** Answers every call with a bare gRPC status, without details. */
export function failingBare(code: status, details: string): Handler {
  return (_call, callback) => callback({ code, details, metadata: new Metadata() });
}
