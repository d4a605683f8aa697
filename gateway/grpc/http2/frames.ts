/** Frames of HTTP/2 (RFC 9113): how they are written, and the errors for malformed ones. */

/** Error codes (RFC 9113, 7). */
export const errorCodes = {
  none: 0x0,
  protocol: 0x1,
  flowControl: 0x3,
  streamClosed: 0x5,
  frameSize: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compression: 0x9,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
} as const;

/** Frame types (RFC 9113, 6) and their flags. */
export const types = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  resetStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goAway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
};
export const flags = { ack: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 };
export const settings = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
};

/** The size of a frame header: length of the payload, type, flags and stream identifier. */
export const headSize = 9;
/** The highest stream identifier, and the largest flow-control window. */
export const maxInt31 = 2 ** 31 - 1;

/** The server violates the protocol: a connection error (RFC 9113, 5.4.1). */
export class ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** PROTOCOL_ERROR. */
export function protocolError(message: string): ConnectionError {
  return new ConnectionError(errorCodes.protocol, message);
}

/** @throws ConnectionError FRAME_SIZE_ERROR */
export function requireSize(payload: Buffer, size: number): void {
  if (payload.length !== size)
    throw new ConnectionError(errorCodes.frameSize, `The payload of a frame does not have ${size} bytes`);
}

/** Writes the header of a frame whose payload has `size` bytes. */
export function writeHead(buffer: Buffer, at: number, size: number, type: number, flag: number, id: number): void {
  buffer.writeUIntBE(size, at, 3);
  buffer[at + 3] = type;
  buffer[at + 4] = flag;
  buffer.writeUInt32BE(id, at + 5);
}

/** A whole frame. Stream 0 is the connection. */
export function frame(type: number, flag: number, id: number, payload: Uint8Array): Buffer {
  const buffer = Buffer.allocUnsafe(headSize + payload.length);
  writeHead(buffer, 0, payload.length, type, flag, id);
  buffer.set(payload, headSize);
  return buffer;
}

/** SETTINGS: identifiers and values. */
export function settingsFrame(values: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(values.length * 6);
  for (const [index, [name, value]] of values.entries()) {
    payload.writeUInt16BE(name, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  }
  return frame(types.settings, 0, 0, payload);
}

/** WINDOW_UPDATE: the server may send `size` bytes more. */
export function windowUpdate(id: number, size: number): Buffer {
  return frame(types.windowUpdate, 0, id, fourBytes(size));
}

/** RST_STREAM. */
export function resetFrame(id: number, code: number): Buffer {
  return frame(types.resetStream, 0, id, fourBytes(code));
}

/** GOAWAY of a client: no stream of the server was processed. */
export function goAway(code: number): Buffer {
  return frame(types.goAway, 0, 0, Buffer.concat([fourBytes(0), fourBytes(code)]));
}

function fourBytes(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A payload without its padding, and without its first `front` bytes. @throws ConnectionError PROTOCOL_ERROR */
export function withoutPadding(payload: Buffer, flag: number, front = 0): Buffer {
  if ((flag & flags.padded) === 0) {
    if (front > payload.length) throw protocolError('A frame is too short');
    return front === 0 ? payload : payload.subarray(front);
  }
  const end = payload.length - (payload[0] ?? 0);
  if (payload.length === 0 || 1 + front > end) throw protocolError('A frame has more padding than bytes');
  return payload.subarray(1 + front, end);
}
