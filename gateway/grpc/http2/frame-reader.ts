import {
  ConnectionError,
  errorCodes,
  flags,
  headSize,
  maxInt31,
  protocolError,
  requireSize,
  settings,
  types,
  withoutPadding,
} from './frames.ts';
import { maxHeaderListBytes } from './hpack.ts';

/** Is called for each frame of a server, whose form has been checked. Each method may throw a ConnectionError. */
export interface FrameHandler {
  /** @param size bytes that it counts for flow control: with its padding */
  data(id: number, piece: Buffer, size: number, isLast: boolean): void;
  /** @param block the whole header block, still encoded */
  fields(id: number, block: Buffer, isLast: boolean): void;
  reset(id: number, code: number): void;
  /** @param values by their identifiers; of one that came several times the last */
  settings(values: ReadonlyMap<number, number>): void;
  ping(payload: Buffer, isAnswer: boolean): void;
  /** @param last the last stream that the server processes */
  goAway(last: number): void;
  /** @param id 0 for the whole connection */
  windowUpdate(id: number, size: number): void;
}

/** The largest payload that we accept (SETTINGS_MAX_FRAME_SIZE): the default, since we announce no other. */
const maxFrameBytes = 16_384;
/** The size of an encoded header block. A larger one ends the connection, since it would have to be decoded in any case. */
const maxBlockBytes = 2 * maxHeaderListBytes;
/** The number of frames of a header block: an empty CONTINUATION costs nothing to send, but has to be kept. */
const maxFragments = 2 * (maxBlockBytes / maxFrameBytes);

/** Splits what a server sends into frames, and checks each by the rules of RFC 9113 for its type. */
export class FrameReader {
  readonly #handler: FrameHandler;
  #unread: Buffer = Buffer.alloc(0);
  #hasSettings = false;
  /** The header block that is incomplete. */
  #block: { id: number; isLast: boolean; pieces: Buffer[]; size: number } | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws ConnectionError */
  read(piece: Buffer): void {
    const bytes = this.#unread.length === 0 ? piece : Buffer.concat([this.#unread, piece]);
    let at = 0;
    while (bytes.length - at >= headSize) {
      const size = bytes.readUIntBE(at, 3);
      if (size > maxFrameBytes) throw new ConnectionError(errorCodes.frameSize, `A frame has ${size} bytes`);
      const end = at + headSize + size;
      if (end > bytes.length) break;
      const id = bytes.readUInt32BE(at + 5) & maxInt31;
      this.#frame(bytes[at + 3] as number, bytes[at + 4] as number, id, bytes.subarray(at + headSize, end));
      at = end;
    }
    this.#unread = bytes.subarray(at);
  }

  #frame(type: number, flag: number, id: number, payload: Buffer): void {
    if (!this.#hasSettings && (type !== types.settings || (flag & flags.ack) !== 0)) {
      throw protocolError('The first frame is not SETTINGS');
    }
    if (this.#block !== undefined && type !== types.continuation)
      throw protocolError('A header block is interrupted by another frame');
    const isLast = (flag & flags.endStream) !== 0;
    switch (type) {
      case types.data:
        requireStream(id);
        return this.#handler.data(id, withoutPadding(payload, flag), payload.length, isLast);
      case types.headers: {
        requireStream(id);
        const block = withoutPadding(payload, flag, (flag & flags.priority) === 0 ? 0 : 5);
        this.#block = { id, isLast, pieces: [block], size: block.length };
        return this.#endBlock(flag);
      }
      case types.continuation:
        return this.#continuation(flag, id, payload);
      case types.priority:
        requireStream(id);
        return requireSize(payload, 5);
      case types.resetStream:
        requireStream(id);
        requireSize(payload, 4);
        return this.#handler.reset(id, payload.readUInt32BE(0));
      case types.settings:
        requireConnection(id);
        return this.#settings(flag, payload);
      case types.ping:
        requireConnection(id);
        requireSize(payload, 8);
        return this.#handler.ping(payload, (flag & flags.ack) !== 0);
      case types.goAway:
        requireConnection(id);
        if (payload.length < 8) throw new ConnectionError(errorCodes.frameSize, 'GOAWAY is too short');
        return this.#handler.goAway(payload.readUInt32BE(0) & maxInt31);
      case types.windowUpdate:
        requireSize(payload, 4);
        return this.#handler.windowUpdate(id, payload.readUInt32BE(0) & maxInt31);
      case types.pushPromise:
        throw protocolError('PUSH_PROMISE is disabled');
      default:
        // Frames of unknown types are ignored (RFC 9113, 4.1).
        return undefined;
    }
  }

  #continuation(flag: number, id: number, payload: Buffer): void {
    const block = this.#block;
    if (block?.id !== id) throw protocolError('CONTINUATION without a header block');
    block.pieces.push(payload);
    block.size += payload.length;
    if (block.size > maxBlockBytes || block.pieces.length > maxFragments) {
      throw new ConnectionError(errorCodes.enhanceYourCalm, 'The header block is too large');
    }
    this.#endBlock(flag);
  }

  #endBlock(flag: number): void {
    if ((flag & flags.endHeaders) === 0) return;
    const { id, isLast, pieces } = this.#block!;
    this.#block = undefined;
    this.#handler.fields(id, pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces), isLast);
  }

  #settings(flag: number, payload: Buffer): void {
    if ((flag & flags.ack) !== 0) return requireSize(payload, 0);
    if (payload.length % 6 !== 0)
      throw new ConnectionError(errorCodes.frameSize, 'SETTINGS is not a whole number of entries');
    this.#hasSettings = true;
    const values = new Map<number, number>();
    for (let at = 0; at < payload.length; at += 6) {
      const [name, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
      requireSetting(name, value);
      values.set(name, value);
    }
    this.#handler.settings(values);
  }
}

function requireStream(id: number): void {
  if (id === 0) throw protocolError('A frame that belongs to a stream has stream identifier 0');
}

function requireConnection(id: number): void {
  if (id !== 0) throw protocolError('A frame that belongs to the connection names a stream');
}

/** @throws ConnectionError if the value is not allowed for a server (RFC 9113, 6.5.2) */
function requireSetting(name: number, value: number): void {
  if (name === settings.enablePush && value !== 0) throw protocolError('A server must not set ENABLE_PUSH');
  if (name === settings.maxFrameSize && (value < maxFrameBytes || value >= 2 ** 24)) {
    throw protocolError(`MAX_FRAME_SIZE must not be ${value}`);
  }
  if (name === settings.initialWindowSize && value > maxInt31) {
    throw new ConnectionError(errorCodes.flowControl, 'INITIAL_WINDOW_SIZE is too large');
  }
}
