import test from 'ava';
import { literals, Peer, rawFrame, rawSettings, turn, uint32 } from '../../../test/http2-peer.ts';
import { errorCodes, flags, settings, types } from './frames.ts';

const { data, headers, priority, resetStream, pushPromise, ping, goAway, windowUpdate, continuation } = types;
const { endStream, endHeaders, padded, ack } = flags;
const ok = literals([':status', '200']);
const eight = Buffer.from('8 bytes.');

/** A connection with two requests under way: streams 1 and 3. */
async function opened(...said: readonly (readonly [name: number, value: number])[]) {
  const peer = new Peer();
  await peer.send(rawSettings(...said));
  const asked = [peer.ask().heard, peer.ask().heard] as const;
  await turn();
  return { peer, asked };
}

/** What ends the connection, and with which error. */
const wrongFrames: [what: string, code: number, ...frames: Buffer[]][] = [
  ['a frame longer than it may be', errorCodes.frameSize, rawFrame(data, 0, 1, Buffer.alloc(16_385))],
  ['DATA of no stream', errorCodes.protocol, rawFrame(data, 0, 0, eight)],
  ['HEADERS of no stream', errorCodes.protocol, rawFrame(headers, endHeaders, 0, ok)],
  ['HEADERS of a stream that was not begun', errorCodes.protocol, rawFrame(headers, endHeaders, 5, ok)],
  ['HEADERS of a stream of the server', errorCodes.protocol, rawFrame(headers, endHeaders, 2, ok)],
  ['HEADERS without their priority', errorCodes.protocol, rawFrame(headers, flags.priority, 1, Buffer.alloc(4))],
  ['more padding than bytes', errorCodes.protocol, rawFrame(data, padded, 1, Buffer.of(3, 0, 0))],
  ['PRIORITY of no stream', errorCodes.protocol, rawFrame(priority, 0, 0, Buffer.alloc(5))],
  ['PRIORITY of a wrong length', errorCodes.frameSize, rawFrame(priority, 0, 1, Buffer.alloc(4))],
  ['RST_STREAM of no stream', errorCodes.protocol, rawFrame(resetStream, 0, 0, uint32(8))],
  ['RST_STREAM of a stream that was not begun', errorCodes.protocol, rawFrame(resetStream, 0, 5, uint32(8))],
  ['RST_STREAM of a wrong length', errorCodes.frameSize, rawFrame(resetStream, 0, 1, Buffer.alloc(3))],
  ['SETTINGS of a stream', errorCodes.protocol, rawFrame(types.settings, 0, 1)],
  ['SETTINGS of a wrong length', errorCodes.frameSize, rawFrame(types.settings, 0, 0, Buffer.alloc(5))],
  ['an ACK of SETTINGS with some', errorCodes.frameSize, rawFrame(types.settings, ack, 0, Buffer.alloc(6))],
  ['a server that wants to be pushed to', errorCodes.protocol, rawSettings([settings.enablePush, 1])],
  ['a window that is too large', errorCodes.flowControl, rawSettings([settings.initialWindowSize, 2 ** 31])],
  ['frames that are too small', errorCodes.protocol, rawSettings([settings.maxFrameSize, 16_383])],
  ['frames that are too large', errorCodes.protocol, rawSettings([settings.maxFrameSize, 2 ** 24])],
  ['PUSH_PROMISE', errorCodes.protocol, rawFrame(pushPromise, endHeaders, 1, Buffer.concat([uint32(2), ok]))],
  ['PING of a stream', errorCodes.protocol, rawFrame(ping, 0, 1, eight)],
  ['PING of a wrong length', errorCodes.frameSize, rawFrame(ping, 0, 0, Buffer.alloc(7))],
  ['GOAWAY of a stream', errorCodes.protocol, rawFrame(goAway, 0, 1, uint32(1, 0))],
  ['GOAWAY of a wrong length', errorCodes.frameSize, rawFrame(goAway, 0, 0, uint32(1))],
  ['WINDOW_UPDATE of a wrong length', errorCodes.frameSize, rawFrame(windowUpdate, 0, 1, uint32(1, 1))],
  ['WINDOW_UPDATE by nothing', errorCodes.protocol, rawFrame(windowUpdate, 0, 0, uint32(0))],
  ['WINDOW_UPDATE by too much', errorCodes.flowControl, rawFrame(windowUpdate, 0, 0, uint32(2 ** 31 - 1))],
  ['CONTINUATION of nothing', errorCodes.protocol, rawFrame(continuation, endHeaders, 1, ok)],
  ['fields that are interrupted', errorCodes.protocol, rawFrame(headers, 0, 1, ok), rawFrame(ping, 0, 0, eight)],
  [
    'fields that go on in another stream',
    errorCodes.protocol,
    rawFrame(headers, 0, 1, ok),
    rawFrame(continuation, endHeaders, 3),
  ],
  [
    'fields in too many frames',
    errorCodes.enhanceYourCalm,
    rawFrame(headers, 0, 1, ok),
    ...Array.from({ length: 100 }, () => rawFrame(continuation, 0, 1)),
  ],
  ['fields that can not be decoded', errorCodes.compression, rawFrame(headers, endHeaders, 1, Buffer.of(0xff, 0x7f))],
  [
    'a table that changes behind a field',
    errorCodes.compression,
    rawFrame(headers, endHeaders, 1, Buffer.concat([ok, Buffer.of(0x20)])),
  ],
  [
    'DATA behind the end of an answer',
    errorCodes.streamClosed,
    rawFrame(headers, endHeaders | endStream, 1, ok),
    rawFrame(data, 0, 1, eight),
  ],
];

for (const [what, code, ...frames] of wrongFrames) {
  test(`connection: ${what} is error ${code}, and no request is lost`, async (t) => {
    const { peer, asked } = await opened();
    await peer.send(...frames);
    t.is(peer.goodbye, code);
    t.true(peer.socket.destroyed);
    await turn();
    for (const { ends } of asked) t.is(ends, 1);
    t.true(peer.isRetired);
  });
}

for (const [what, first] of [
  ['no SETTINGS', rawFrame(ping, 0, 0, eight)],
  ['an ACK', rawFrame(types.settings, ack, 0)],
] as const) {
  test(`connection: a server that begins with ${what} is none`, async (t) => {
    const peer = new Peer();
    await peer.send(first);
    t.is(peer.goodbye, errorCodes.protocol);
    t.false(peer.isReady);
  });
}

/** What ends one request, and leaves the other alone. */
const wrongAnswers: [what: string, code: number, ...frames: Buffer[]][] = [
  ['DATA before the fields', errorCodes.protocol, rawFrame(data, 0, 1, eight)],
  ['no status', errorCodes.protocol, rawFrame(headers, endHeaders, 1, literals(['a', 'b']))],
  ['two statuses', errorCodes.protocol, rawFrame(headers, endHeaders, 1, Buffer.concat([ok, ok]))],
  ['a status that is none', errorCodes.protocol, rawFrame(headers, endHeaders, 1, literals([':status', '20']))],
  [
    'a status behind a field',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals(['a', 'b'], [':status', '200'])),
  ],
  [
    'a pseudo-field of requests',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], [':path', '/'])),
  ],
  [
    'an interim answer that ends',
    errorCodes.protocol,
    rawFrame(headers, endHeaders | endStream, 1, literals([':status', '100'])),
  ],
  [
    'fields behind the head that do not end it',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, ok),
    rawFrame(headers, endHeaders, 1, literals(['a', 'b'])),
  ],
  [
    'a status at its end',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, ok),
    rawFrame(headers, endHeaders | endStream, 1, ok),
  ],
  ...['Upper', 'sp ace', '', 'a:b'].map((name): [string, number, Buffer] => [
    `the name ${JSON.stringify(name)}`,
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], [name, 'v'])),
  ]),
  ...['a\0b', 'a\nb', 'a\rb', 'a\x7fb'].map((value): [string, number, Buffer] => [
    `the value ${JSON.stringify(value)}`,
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], ['a', value])),
  ]),
  ...['connection', 'transfer-encoding', 'upgrade', 'keep-alive', 'proxy-connection'].map(
    (name): [string, number, Buffer] => [
      `the field ${name}`,
      errorCodes.protocol,
      rawFrame(headers, endHeaders, 1, literals([':status', '200'], [name, 'x'])),
    ],
  ),
  [
    'fewer bytes than announced',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], ['content-length', '9'])),
    rawFrame(data, endStream, 1, eight),
  ],
  [
    'more bytes than announced',
    errorCodes.protocol,
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], ['content-length', '7'])),
    rawFrame(data, 0, 1, eight),
  ],
  ['WINDOW_UPDATE by nothing', errorCodes.protocol, rawFrame(windowUpdate, 0, 1, uint32(0))],
  ['WINDOW_UPDATE by too much', errorCodes.flowControl, rawFrame(windowUpdate, 0, 1, uint32(2 ** 31 - 1))],
];

for (const [what, code, ...frames] of wrongAnswers) {
  test(`answer: ${what} ends its request alone`, async (t) => {
    const { peer, asked } = await opened();
    // What still comes for it is of no consequence.
    await peer.send(...frames, rawFrame(data, 0, 1, eight), rawFrame(headers, endHeaders | endStream, 1, ok));
    t.deepEqual(asked[0].ended, { kind: 'malformed' });
    t.is(asked[0].ends, 1);
    t.deepEqual(peer.frames(resetStream), [{ type: resetStream, flag: 0, id: 1, payload: uint32(code) }]);
    await peer.send(rawFrame(headers, endHeaders | endStream, 3, ok));
    t.is(asked[1].ended, 'whole');
    t.is(peer.goodbye, undefined);
  });
}

test('answer: what HTTP/2 leaves open is taken', async (t) => {
  const { peer, asked } = await opened([0xfff0, 7]);
  await peer.send(
    rawFrame(0x2a, 0xff, 1, eight),
    rawFrame(priority, 0, 9, Buffer.alloc(5)),
    rawFrame(ping, ack, 0, eight),
    rawFrame(headers, endHeaders, 1, literals([':status', '103'], ['a', 'b'])),
    rawFrame(headers, endHeaders, 1, literals([':status', '200'], ['a', 'b'])),
    rawFrame(data, 0, 1),
    rawFrame(data, padded | endStream, 1, Buffer.of(1, 0x78, 0)),
    rawFrame(windowUpdate, 0, 1, uint32(1)),
    rawFrame(resetStream, 0, 1, uint32(0)),
  );
  t.is(peer.goodbye, undefined);
  t.is(asked[0].ended, 'whole');
  t.deepEqual(asked[0].events, ['[[":status","200"],["a","b"]]', 'x']);
});

test('settings: a table below 4,096 bytes is acknowledged in the next block of fields, and only there', async (t) => {
  const peer = new Peer();
  await peer.send(rawSettings([settings.headerTableSize, 100]));
  peer.ask();
  peer.ask();
  await turn();
  const [first, second] = peer.frames(headers);
  t.is(first!.payload[0], 0x20);
  t.not(second!.payload[0], 0x20);
  t.deepEqual(first!.payload.subarray(1), second!.payload);
  await peer.send(rawSettings([settings.headerTableSize, 8_192]));
  peer.ask();
  await turn();
  t.not(peer.frames(headers)[2]!.payload[0], 0x20);
});

test('settings: of a window that is said several times the last one counts', async (t) => {
  const peer = new Peer();
  await peer.send(rawSettings([settings.initialWindowSize, 1], [settings.initialWindowSize, 3]));
  peer.ask(Buffer.from('12345'));
  await turn();
  t.deepEqual(
    peer.frames(data).map(({ payload }) => payload.toString()),
    ['123'],
  );
  await peer.send(rawSettings([settings.initialWindowSize, 100], [settings.initialWindowSize, 4]));
  t.is(peer.frames(data).at(-1)!.payload.toString(), '4');
});

test('ping: only the answer with the same payload is one', async (t) => {
  const { peer } = await opened();
  let answers = 0;
  peer.connection.ping(() => (answers += 1));
  await turn();
  const [asked] = peer.frames(ping);
  await peer.send(rawFrame(ping, ack, 0, eight));
  t.is(answers, 0);
  await peer.send(rawFrame(ping, ack, 0, asked!.payload), rawFrame(ping, ack, 0, asked!.payload));
  t.is(answers, 1);
});

for (const [what, asking] of [
  ['PING', rawFrame(ping, 0, 0, eight)],
  ['SETTINGS', rawSettings()],
] as const) {
  test(`${what}: a server that asks on and takes nothing is left`, async (t) => {
    const peer = new Peer({ takes: false });
    await peer.send(rawSettings());
    const chunk = Buffer.concat(Array.from({ length: 1_000 }, () => asking));
    let chunks = 0;
    for (; chunks < 100 && !peer.socket.destroyed; chunks += 1) await peer.send(chunk);
    t.true(peer.socket.destroyed);
    t.true(chunks <= 6, `${chunks}`);
    // Who takes them may ask as often as it likes.
    const other = new Peer();
    await other.send(rawSettings());
    for (let round = 0; round < 20; round += 1) await other.send(chunk);
    t.false(other.socket.destroyed);
    t.is(other.frames(asking[3]).length >= 20_000, true);
  });
}

test('request: those that wait for room are limited', async (t) => {
  const peer = new Peer();
  await peer.send(rawSettings([settings.maxConcurrentStreams, 0]));
  const body = Buffer.alloc(1024 * 1024);
  const asked = Array.from({ length: 70 }, () => peer.ask(body));
  await turn();
  t.is(asked.filter(({ heard }) => heard.ended !== undefined).length, 6);
  t.deepEqual(asked.at(-1)!.heard.ended, { kind: 'unsent' });
  asked[0]!.cancel();
  const { heard } = peer.ask(body);
  await turn();
  t.is(heard.ended, undefined);
});

test('request: late frames of requests that were given up are of no consequence, however many', async (t) => {
  const { peer } = await opened();
  for (let count = 0; count < 3_000; count += 1) peer.ask(Buffer.alloc(0)).cancel();
  await turn();
  const reset = peer.frames(resetStream).map(({ id }) => id);
  t.true(reset.length > 0);
  for (const id of reset) await peer.send(rawFrame(headers, endHeaders | endStream, id, ok));
  t.is(peer.goodbye, undefined);
});
