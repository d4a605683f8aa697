import {
  ConnectionError,
  errorCodes,
  flags,
  headSize,
  most31,
  protocolError,
  requireSize,
  settings,
  types,
  withoutPadding,
} from './frames.ts';
import { largestList } from './hpack.ts';

/** Hears of the frames of a server, each of which has the form that its type must have. Each may throw a ConnectionError. */
export interface FrameHandler {
  /** @param size bytes that it counts in the windows: with its padding */
  data(id: number, piece: Buffer, size: number, isLast: boolean): void;
  /** @param block the fields as they are coded, whole */
  fields(id: number, block: Buffer, isLast: boolean): void;
  reset(id: number, code: number): void;
  /** @param values by their names, of each the last one */
  settings(values: ReadonlyMap<number, number>): void;
  ping(payload: Buffer, isAnswer: boolean): void;
  /** @param last the last stream that the server looks at */
  goAway(last: number): void;
  /** @param id 0 for the whole connection */
  windowUpdate(id: number, size: number): void;
}

/** Bytes of a frame that we take: as it is unless we said otherwise. */
const largestFrame = 16_384;
/** Bytes of the fields of an answer as they are coded. More ends the connection: they would have to be decoded all the same. */
const largestBlock = 2 * largestList;
/** In how many frames they may come: an empty one costs nothing to send, but has to be kept. */
const mostPieces = 2 * (largestBlock / largestFrame);

/** Cuts what a server sends into frames, and requires of each what RFC 9113 requires of its type. */
export class FrameReader {
  readonly #handler: FrameHandler;
  #unread: Buffer = Buffer.alloc(0);
  #hasSettings = false;
  /** The fields of an answer of which more has to come. */
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
      if (size > largestFrame) throw new ConnectionError(errorCodes.frameSize, `A frame has ${size} bytes`);
      const end = at + headSize + size;
      if (end > bytes.length) break;
      const id = bytes.readUInt32BE(at + 5) & most31;
      this.#frame(bytes[at + 3] as number, bytes[at + 4] as number, id, bytes.subarray(at + headSize, end));
      at = end;
    }
    this.#unread = bytes.subarray(at);
  }

  #frame(type: number, flag: number, id: number, payload: Buffer): void {
    if (!this.#hasSettings && (type !== types.settings || (flag & flags.ack) !== 0)) {
      throw protocolError('The first frame has no settings');
    }
    if (this.#block !== undefined && type !== types.continuation) throw protocolError('Fields were interrupted');
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
        if (payload.length < 8) throw new ConnectionError(errorCodes.frameSize, 'A goodbye is cut off');
        return this.#handler.goAway(payload.readUInt32BE(0) & most31);
      case types.windowUpdate:
        requireSize(payload, 4);
        return this.#handler.windowUpdate(id, payload.readUInt32BE(0) & most31);
      case types.pushPromise:
        throw protocolError('Nothing may be pushed');
      default:
        // Others are to be ignored (RFC 9113, 4.1).
        return undefined;
    }
  }

  #continuation(flag: number, id: number, payload: Buffer): void {
    const block = this.#block;
    if (block?.id !== id) throw protocolError('Fields go on that have not begun');
    block.pieces.push(payload);
    block.size += payload.length;
    if (block.size > largestBlock || block.pieces.length > mostPieces) {
      throw new ConnectionError(errorCodes.enhanceYourCalm, 'There are too many fields');
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
    if (payload.length % 6 !== 0) throw new ConnectionError(errorCodes.frameSize, 'Settings are cut off');
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
  if (id === 0) throw protocolError('A frame of a stream names none');
}

function requireConnection(id: number): void {
  if (id !== 0) throw protocolError('A frame of the connection names a stream');
}

/** @throws ConnectionError if a server may not say that (RFC 9113, 6.5.2) */
function requireSetting(name: number, value: number): void {
  if (name === settings.enablePush && value !== 0) throw protocolError('Servers are pushed nothing');
  if (name === settings.maxFrameSize && (value < largestFrame || value >= 2 ** 24)) {
    throw protocolError(`Frames can't have ${value} bytes`);
  }
  if (name === settings.initialWindowSize && value > most31) {
    throw new ConnectionError(errorCodes.flowControl, 'A window is too large');
  }
}
