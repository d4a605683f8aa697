import { readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary, toJson, type JsonValue } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import {
  Metadata,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServiceDefinition,
  type status,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { invalidFields, type FieldViolation, type HubError } from '#lib/errors.ts';
import { decodeViolations, toStatus } from '#lib/rpc/status.ts';

/** The descriptor set of the services in test/protos. */
export const descriptorSet = new URL('protos/descriptors.binpb', import.meta.url).pathname;
export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet)));

/** A call as it arrived. */
export interface EchoCall {
  /** The RPC's name. */
  method: string;
  /** The request, as protobuf-es prints it (canonical ProtoJSON). */
  request: JsonValue;
  metadata: Metadata;
  deadline: number;
}

type Handler = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;

/** A gRPC server that answers each call of test/protos with the request. */
export interface EchoBackend {
  /** host:port. */
  address: string;
  /** What arrived, oldest first. */
  calls: EchoCall[];
  /** What the server finds wrong with every request, as validation rules would. */
  violations: FieldViolation[];
  /** Answers calls in place of the echo. */
  handler: Handler | undefined;
  health: HealthImplementation;
  stop(): void;
}

/** Starts a backend on a free port, or on the one given. */
export async function startEchoBackend(port = 0): Promise<EchoBackend> {
  const server = new Server();
  const health = new HealthImplementation({ '': 'SERVING', database: 'SERVING' });
  health.addToServer(server);
  const backend: EchoBackend = {
    address: '',
    calls: [],
    violations: [],
    handler: undefined,
    health,
    stop: () => server.forceShutdown(),
  };
  for (const type of registry) {
    if (type.kind !== 'service' || !type.typeName.startsWith('transcoding.')) continue;
    const definition: Record<string, unknown> = {};
    const handlers: Record<string, Handler> = {};
    for (const method of type.methods) {
      definition[method.name] = {
        path: `/${type.typeName}/${method.name}`,
        requestStream: false,
        responseStream: false,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      };
      handlers[method.name] = (call, callback) => {
        backend.calls.push({
          method: method.name,
          request: toJson(method.input, fromBinary(method.input, call.request), { registry }),
          metadata: call.metadata,
          deadline: Number(call.getDeadline()),
        });
        const [found] = call.metadata.get('x-field-violations-bin');
        const fields = [...(found === undefined ? [] : decodeViolations(found as Buffer)), ...backend.violations];
        if (fields.length > 0) callback({ ...toStatus(invalidFields(fields)) });
        else if (backend.handler !== undefined) backend.handler(call, callback);
        else callback(null, call.request);
      };
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
