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
 * The bytes of an HTTP body in the stream of an RPC (`raw_body` of chat4all.options.v1). They are read from and written to
 * the encoded messages directly: to decode and encode each message as a whole would copy all bytes two times more.
 */

/** What the bytes field of an encoded message holds; a view, not a copy. Undefined if it holds nothing. */
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
 * Such a message for grpc-js's server, which copies what it sends behind the prefix of a frame: the bytes come there from where they
 * are, without a message between. Looks to it like the Buffer of one.
 */
export class PieceMessage {
  readonly byteLength: number;
  readonly #head: Buffer;
  #bytes: Uint8Array;
  #copy: Buffer | undefined;

  /** @param bytes may be used for something else once `detach` was called */
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

  /** Keeps the bytes if they have not been copied yet. */
  detach(): void {
    if (this.#copy === undefined) this.#bytes = Uint8Array.from(this.#bytes);
  }

  /** Gives back the memory of the copy, which was sent. */
  release(): void {
    if (this.#copy !== undefined) release(this.#copy);
  }
}

function headOf(field: DescField, length: number): Buffer {
  return Buffer.from([...varint((field.number << 3) | WireType.LengthDelimited), ...varint(length)]);
}

/**
 * Gives the memory of bytes back at once, which nobody may use any more. Left to the garbage collector, each 64 MiB that
 * pass would make it look through the whole heap: that costs more than all else that is done with them.
 */
export function release(bytes: Uint8Array): void {
  const { buffer } = bytes;
  // Smaller ones lie in a buffer with others.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength) buffer.transfer(0);
}

/** What a client is told that sends too slowly, or nothing. */
export function tooSlow(): HubError {
  return new HubError('DEADLINE_EXCEEDED', 'REQUEST_TIMEOUT', 'The request took too long to arrive');
}

/** Bytes that a client may send in one message. */
const largestPiece = 1024 * 1024;

function piece(field: DescField, encoded: Uint8Array): Uint8Array | undefined {
  const malformed = (message: string, cause?: unknown) =>
    new HubError('INVALID_ARGUMENT', 'MALFORMED_REQUEST', message, { cause });
  let bytes: Uint8Array | undefined;
  try {
    bytes = bytesIn(field, encoded);
  } catch (cause) {
    throw malformed('A piece is no message of the expected type', cause);
  }
  if (bytes !== undefined && bytes.length > largestPiece) {
    throw malformed(`A piece has ${bytes.length} bytes: send at most ${largestPiece} in one message`);
  }
  return bytes;
}

/** How a gateway says that it can put a body elsewhere, and how a server says where (`raw_body` of chat4all.options.v1). */
export const handOverKeys = { offer: 'x-body-hand-over', location: 'x-body-location' } as const;

/** Metadata of a download of which only the first message is wanted: nothing is read. */
export const headOnlyKey = 'x-head-only';

/** What `receivedBytes` needs to know of a stream of messages. */
export interface Receiving<Message> {
  messages: AsyncIterator<Message>;
  /** The first message, which has been read already. */
  first: Message | undefined;
  /** Whether the bytes may be asked for elsewhere. */
  canHandOver: boolean;
  /** The least that is to come while it is waited for. */
  rate: RateFloorOptions;
  /** What the answer begins with. */
  initial: Metadata;
}

/**
 * The bytes in a stream of messages, those of the first message included. Each piece is gone when the next one is asked for.
 *
 * The initial metadata is sent when they are asked for: it tells a gateway that the request is in order. A client that then sends
 * too slowly is an error; the time in which nobody asks for the next piece doesn't count.
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
      // Bytes rather than messages: on a slow line, one of them may take longer than the floor's window.
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
 * Writes a first message and then the bytes, at the pace of the reader. One that takes them too slowly is cut off.
 *
 * @throws what `bytes` throws, or the signal's reason once the reader has gone; HubError DEADLINE_EXCEEDED `READER_TOO_SLOW`
 */
export async function writeBytes(
  call: ServerWritableStream<unknown, object>,
  head: object,
  bytes: Bytes,
  field: DescField,
  { begin: beginAnswer, signal, least }: WritingOptions,
): Promise<void> {
  const writing = new Writing(call, signal, least);
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
      // Not before the first bytes are there: what can't be read is an error then, and not the beginning of an answer.
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

/** Bytes that a client may send ahead on one stream, and on one connection. */
const window = { stream: 1024 * 1024, connection: 8 * 1024 * 1024 };
const widened = new WeakSet<object>();

interface Http2Session {
  settings(settings: { initialWindowSize: number }): void;
  setLocalWindowSize(size: number): void;
}

/** The HTTP/2 stream of a call. grpc-js has no public way to it: undefined where its inside has changed. */
function streamOf(call: object): (Readable & { session?: Http2Session }) | undefined {
  return (call as { call?: { stream?: Readable } }).call?.stream;
}

/**
 * Lets the client of this call send 1 MiB ahead. grpc-js's server stays at HTTP/2's 64 KiB whatever it is told
 * (github.com/grpc/grpc-node/issues/3058), which at 2 ms of round trip is 13 MB/s.
 */
export function widenWindow(call: object): void {
  const session = streamOf(call)?.session;
  if (session === undefined || widened.has(session)) return;
  widened.add(session);
  session.settings({ initialWindowSize: window.stream });
  session.setLocalWindowSize(window.connection);
}
