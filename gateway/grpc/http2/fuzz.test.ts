import test from 'ava';
import fc from 'fast-check';
import { literals, Peer, rawFrame, rawSettings, turn, uint32 } from '../../../test/http2-peer.ts';
import { flags, types } from './frames.ts';
import { HpackDecoder, HpackError, writeField, maxFieldBytes } from './hpack.ts';

/** Enough to find what is wrong again and again, and few enough for each run of the tests. */
const runs = { hpack: 3_000, frames: 400 };

/** What HPACK knows: fields of each form, changes of the table, and whatever. */
const hpackPiece = fc.oneof(
  fc.integer({ min: 0x80, max: 0xff }).map((byte) => Buffer.of(byte)),
  fc.integer({ min: 0x20, max: 0x3f }).map((byte) => Buffer.of(byte)),
  fc
    .tuple(fc.constantFrom(0x00, 0x10, 0x40), fc.string({ maxLength: 12 }), fc.string({ maxLength: 60 }))
    .map(([first, name, value]) => Buffer.concat([Buffer.of(first), literals([name, value]).subarray(1)])),
  fc
    .tuple(fc.constantFrom(0x0f, 0x1f, 0x7f), fc.uint8Array({ maxLength: 8 }))
    .map(([first, rest]) => Buffer.of(first, ...rest)),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);
const hpackBlock = fc.array(hpackPiece, { maxLength: 8 }).map((pieces) => Buffer.concat(pieces));

test('hpack: whatever comes is decoded or an HpackError, and the table stays as small as it has to', (t) => {
  fc.assert(
    fc.property(fc.array(hpackBlock, { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder();
      for (const block of blocks) {
        try {
          const fields = decoder.decode(block);
          for (const [name, value] of Object.entries(fields ?? {})) {
            if (!/^(:[a-z]+|[^\sA-Z:]+)$/.test(name) || /[\0\n\r]/.test(String(value))) return false;
          }
        } catch (error) {
          // Nothing behind it can be decoded.
          if (!(error instanceof HpackError)) throw error;
          return true;
        }
        if (decoder.size > 4_096) return false;
      }
      return true;
    }),
    { numRuns: runs.hpack },
  );
  t.pass();
});

const fieldName = fc.stringMatching(/^[a-z0-9!#$%&'*+.^_`|~-]{1,200}$/);
const fieldValue = fc.stringMatching(/^[!-~]([ -~]{0,300}[!-~])?$/);

test('hpack: what is written is what is read', (t) => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.tuple(fieldName, fieldValue), { selector: ([name]) => name, maxLength: 20 }),
      (fields) => {
        const buffer = Buffer.alloc(fields.reduce((sum, [name, value]) => sum + maxFieldBytes(name, value), 0));
        const end = fields.reduce((at, [name, value]) => writeField(buffer, at, name, value), 0);
        const read = new HpackDecoder().decode(buffer.subarray(0, end));
        const forbidden = fields.some(([name]) =>
          /^(connection|proxy-connection|keep-alive|transfer-encoding|upgrade)$/.test(name),
        );
        if (forbidden) return read === undefined;
        return fields.every(([name, value]) => String(read?.[name]) === value);
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});

const { data, headers, resetStream, goAway, windowUpdate, continuation, ping } = types;
const streamId = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(1, 3, 5) }, fc.constantFrom(0, 2, 7, 2 ** 31 - 1));
const anyFlag = fc.constantFrom(
  0,
  flags.endStream,
  flags.endHeaders,
  flags.endStream | flags.endHeaders,
  flags.padded,
  0xff,
);
const okBlock = fc.constantFrom(
  literals([':status', '200']),
  literals([':status', '200'], ['content-type', 'application/grpc']),
  literals(['grpc-status', '0']),
  literals([':status', '100']),
  Buffer.alloc(0),
);

/** Frames as servers send them, frames that are nearly like that, and whatever. */
const anyFrame = fc.oneof(
  fc
    .tuple(anyFlag, streamId, fc.oneof(okBlock, hpackBlock))
    .map(([flag, id, block]) => rawFrame(headers, flag, id, block)),
  fc
    .tuple(anyFlag, streamId, fc.oneof(okBlock, hpackBlock))
    .map(([flag, id, block]) => rawFrame(continuation, flag, id, block)),
  fc
    .tuple(anyFlag, streamId, fc.uint8Array({ maxLength: 50 }))
    .map(([flag, id, bytes]) => rawFrame(data, flag, id, bytes)),
  fc.tuple(streamId, fc.nat({ max: 13 })).map(([id, code]) => rawFrame(resetStream, 0, id, uint32(code))),
  fc
    .tuple(
      fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 9),
      fc.constantFrom(0, 1, 100, 16_384, 65_535, 2 ** 31 - 1, 2 ** 32 - 1),
    )
    .map((entry) => rawSettings(entry)),
  fc
    .tuple(streamId, fc.constantFrom(0, 1, 1_000, 2 ** 31 - 1))
    .map(([id, size]) => rawFrame(windowUpdate, 0, id, uint32(size))),
  fc.constantFrom(0, 1).map((flag) => rawFrame(ping, flag, 0, Buffer.alloc(8))),
  fc.constantFrom(0, 1, 3, 2 ** 31 - 1).map((last) => rawFrame(goAway, 0, 0, uint32(last, 0))),
  fc
    .tuple(fc.nat({ max: 12 }), fc.nat({ max: 255 }), streamId, fc.uint8Array({ maxLength: 30 }))
    .map(([type, flag, id, bytes]) => rawFrame(type, flag, id, bytes)),
  fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
);

interface Outcome {
  events: readonly (readonly string[])[];
  ended: readonly unknown[];
  goodbye: number | undefined;
  isDestroyed: boolean;
}

/** What comes of three requests, of which the last is given up, when a server sends these bytes in such pieces. */
async function outcomeOf(pieces: readonly Buffer[]): Promise<Outcome & { ends: readonly number[] }> {
  const peer = new Peer();
  await peer.send(rawSettings());
  const asked = [peer.ask(), peer.ask(Buffer.alloc(100_000)), peer.ask()];
  await turn();
  asked[2]!.cancel();
  for (const piece of pieces) peer.socket.push(piece);
  await turn();
  const { goodbye } = peer;
  const isDestroyed = peer.socket.destroyed;
  peer.socket.destroy();
  await turn();
  const heards = asked.map(({ heard }) => heard);
  return {
    events: heards.map(({ events }) => events),
    ended: heards.map(({ ended }) => ended),
    ends: heards.map(({ ends }) => ends),
    goodbye,
    isDestroyed,
  };
}

function cut(bytes: Buffer, size: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
  return pieces;
}

test('frames: whatever a server sends, each request is over once, and how the bytes are cut changes nothing', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyFrame, { maxLength: 12 }), fc.integer({ min: 1, max: 40 }), async (frames, size) => {
      const bytes = Buffer.concat(frames);
      const whole = await outcomeOf([bytes]);
      // Who was given up hears nothing more; all others hear an end.
      t.deepEqual(whole.ends, [1, 1, 0]);
      if (whole.goodbye !== undefined && whole.goodbye !== 0) t.true(whole.isDestroyed);
      const cutUp = await outcomeOf(cut(bytes, size));
      t.deepEqual(cutUp.ended, whole.ended);
      t.is(cutUp.goodbye, whole.goodbye);
      t.deepEqual(
        cutUp.events.map((events) => events.join('')),
        whole.events.map((events) => events.join('')),
      );
    }),
    { numRuns: runs.frames },
  );
});
