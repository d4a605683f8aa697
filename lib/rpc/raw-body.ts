import type { Readable } from 'node:stream';
import type { DescField } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import type { Metadata, ServerReadableStream, ServerWritableStream } from '@grpc/grpc-js';
import { HubError } from '../errors.ts';
import { RateFloor, type RateFloorOptions } from '../rate-floor.ts';
import { varint } from './canonical.ts';
import type { Bytes, UploadBytes } from './methods.ts';
import { Writing, type WritingOptions } from './writing.ts';

/**
 * The bytes of an HTTP body in the stream of an RPC (`raw_body` of chat4all.options.v1). They are read from and written to encoded messages
 * directly: decoding and encoding whole messages would copy all bytes twice more.
 */

/** The content of the bytes field of an encoded message, as a view, not a copy. Undefined if it is empty. */
export function bytesIn(field: DescField, encoded: Uint8Array): Uint8Array | undefined {
  const reader = new BinaryReader(encoded);
  let found: Uint8Array | undefined;
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === field.number && wire === WireType.LengthDelimited) found = reader.bytes();
    else reader.skip(wire, number);
  }
  return found === undefined || found.length === 0 ? undefined : found;
}

/** Encodes a message in which only the bytes field is set. */
export function bytesMessage(field: DescField, piece: Uint8Array): Buffer {
  const head = headOf(field, piece.length);
  const message = Buffer.allocUnsafe(head.length + piece.length);
  message.set(head);
  message.set(piece, head.length);
  return message;
}

/**
 * An encoded message with only the bytes field, for grpc-js's server. It has the interface of a Buffer that grpc-js uses to copy the
 * message behind its length prefix, and copies the bytes straight from their source.
 */
export class PieceMessage {
  readonly byteLength: number;
  readonly #head: Buffer;
  #bytes: Uint8Array;
  #copy: Buffer | undefined;

  /** @param bytes may be overwritten once `detach` was called */
  constructor(field: DescField, bytes: Uint8Array) {
    this.#head = headOf(field, bytes.length);
    this.#bytes = bytes;
    this.byteLength = this.#head.length + bytes.length;
  }

  copy(target: Buffer, at: number): void {
    target.set(this.#head, at);
    target.set(this.#bytes, at + this.#head.length);
    this.#copy = target;
  }

  /** Copies the bytes, unless grpc-js has copied them. */
  detach(): void {
    if (this.#copy === undefined) this.#bytes = Uint8Array.from(this.#bytes);
  }

  /** Releases the memory of the copy, once it was sent. */
  release(): void {
    if (this.#copy !== undefined) release(this.#copy);
  }
}

function headOf(field: DescField, length: number): Buffer {
  return Buffer.from([...varint((field.number << 3) | WireType.LengthDelimited), ...varint(length)]);
}

/**
 * Frees the memory of bytes at once; nobody may use them any more. Otherwise every 64 MiB of external memory trigger a full garbage
 * collection, which costs more than everything else that is done with the bytes.
 */
export function release(bytes: Uint8Array): void {
  const { buffer } = bytes;
  // Smaller Buffers share an ArrayBuffer.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength) buffer.transfer(0);
}

/** The error for a client that sends too slowly, or nothing. */
export function tooSlow(): HubError {
  return new HubError('DEADLINE_EXCEEDED', 'REQUEST_TIMEOUT', 'The request took too long to arrive');
}

const maxPieceBytes = 1024 * 1024;

function piece(field: DescField, encoded: Uint8Array): Uint8Array | undefined {
  const malformed = (message: string, cause?: unknown) =>
    new HubError('INVALID_ARGUMENT', 'MALFORMED_REQUEST', message, { cause });
  let bytes: Uint8Array | undefined;
  try {
    bytes = bytesIn(field, encoded);
  } catch (cause) {
    throw malformed('A piece is no message of the expected type', cause);
  }
  if (bytes !== undefined && bytes.length > maxPieceBytes) {
    throw malformed(`A piece has ${bytes.length} bytes: send at most ${maxPieceBytes} in one message`);
  }
  return bytes;
}

/** Metadata keys of `raw_body` (chat4all.options.v1): a gateway's offer to transfer a body directly, and the server's URL for it. */
export const handOverKeys = { offer: 'x-body-hand-over', location: 'x-body-location' } as const;

/** Metadata key of a download that only wants the first message: no content is read. */
export const headOnlyKey = 'x-head-only';

/** What `receivedBytes` needs to know of a stream of messages. */
export interface Receiving<Message> {
  messages: AsyncIterator<Message>;
  /** The first message, which has been received already. */
  first: Message | undefined;
  /** Whether the gateway can put the bytes to a URL. */
  canHandOver: boolean;
  /** The minimum rate while bytes are being waited for. */
  rate: RateFloorOptions;
  /** The initial metadata of the answer. */
  initial: Metadata;
}

/**
 * The bytes in a stream of messages, including the first message. Each piece is only valid until the next one is requested.
 *
 * Initial metadata is sent when the first piece is requested: it tells a gateway that the request was accepted. A client that then sends
 * too slowly is an error; time in which no piece is requested doesn't count.
 */
export function receivedBytes<Message extends { encoded: Uint8Array }>(
  call: ServerReadableStream<unknown, unknown>,
  field: DescField,
  { messages, first, canHandOver, rate, initial }: Receiving<Message>,
): UploadBytes {
  let isAsked = false;
  let next = first;
  const ask = () => {
    if (!isAsked) call.sendMetadata(initial);
    isAsked = true;
  };
  const advance = async () => {
    const { done, value } = await messages.next();
    next = done === true ? undefined : value;
  };
  return {
    async *[Symbol.asyncIterator]() {
      ask();
      const floor = new RateFloor(rate, () => call.destroy(tooSlow()));
      floor.pause();
      // Counts bytes rather than messages: on a slow line a single message may take longer than the window.
      const count = (data: Uint8Array) => floor.count(data.byteLength);
      const stream = streamOf(call);
      stream?.on('data', count);
      try {
        while (next !== undefined) {
          const bytes = piece(field, next.encoded);
          if (bytes !== undefined) yield bytes;
          release(next.encoded);
          floor.resume();
          await advance();
          floor.pause();
        }
      } finally {
        floor.stop();
        stream?.off('data', count);
      }
    },
    ...(canHandOver && {
      async handOver(url: string) {
        initial.set(handOverKeys.location, url);
        ask();
        await advance();
        if (next === undefined) return 'put';
        return piece(field, next.encoded) === undefined ? 'failed' : 'sent';
      },
    }),
  };
}

/**
 * Writes a first message and then the bytes, with backpressure. A reader that is too slow is cut off.
 *
 * @throws what `bytes` throws, or the signal's reason once the reader has gone; HubError DEADLINE_EXCEEDED `READER_TOO_SLOW`
 */
export async function writeBytes(
  call: ServerWritableStream<unknown, object>,
  head: object,
  bytes: Bytes,
  field: DescField,
  { begin: beginAnswer, signal, minRate }: WritingOptions,
): Promise<void> {
  const writing = new Writing(call, signal, minRate);
  let begun = false;
  const begin = async () => {
    if (!begun) {
      beginAnswer();
      writing.write(head);
    }
    begun = true;
    await writing.last();
  };
  try {
    for await (const bytesOfPiece of bytes) {
      // Only once the first bytes are there, so that unreadable content is an error and not a broken-off answer.
      await begin();
      const message = new PieceMessage(field, bytesOfPiece);
      writing.write(message, () => {
        message.release();
        writing.count(message.byteLength);
      });
      message.detach();
    }
    await begin();
  } finally {
    writing.stop();
  }
}

/** The HTTP/2 flow-control windows of a stream and of a connection, in bytes. */
const window = { stream: 1024 * 1024, connection: 8 * 1024 * 1024 };
const widened = new WeakSet<object>();

interface Http2Session {
  settings(settings: { initialWindowSize: number }): void;
  setLocalWindowSize(size: number): void;
}

/** The HTTP/2 stream of a call. Reads private fields of grpc-js; undefined if they have changed. */
function streamOf(call: object): (Readable & { session?: Http2Session }) | undefined {
  return (call as { call?: { stream?: Readable } }).call?.stream;
}

/**
 * Widens the flow-control window of a call to 1 MiB. grpc-js's server keeps HTTP/2's 64 KiB whatever its options say
 * (github.com/grpc/grpc-node/issues/3058), which at a round trip of 2 ms allows 13 MB/s.
 */
export function widenWindow(call: object): void {
  const session = streamOf(call)?.session;
  if (session === undefined || widened.has(session)) return;
  widened.add(session);
  session.settings({ initialWindowSize: window.stream });
  session.setLocalWindowSize(window.connection);
}
