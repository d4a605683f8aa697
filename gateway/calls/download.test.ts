import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { parse } from 'content-disposition';
import test from 'ava';
import { HubError } from '#lib/errors.ts';
import { toStatus } from '#lib/rpc/status.ts';
import { content } from '../../test/echo-backend.ts';
import { dial, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';

const MiB = 1024 * 1024;
const patient = { uploadIdle: 30_000, downloadIdle: 60_000 };

type Sending = ServerWritableStream<Buffer, Buffer>;

/** Sends messages, and says how the call ended. */
function sending(...messages: Buffer[]) {
  return (call: Sending) => {
    call.on('error', () => {});
    for (const message of messages) call.write(message);
    call.end();
  };
}

function failing(error: HubError, ...before: Buffer[]) {
  return (call: Sending) => {
    call.on('error', () => {});
    for (const message of before) call.write(message);
    // So it is for grpc-js: it then waits for what was written before.
    call.emit('error', toStatus(error));
  };
}

/** Asks for a download and leaves reading it to the test. */
async function ask(port: number, path = '/v1/raw/a/content'): Promise<IncomingMessage> {
  const request = httpRequest({ port, host: '127.0.0.1', path, agent: false });
  request.on('error', () => {});
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

test('download: the first message becomes headers, the pieces in all messages the body', async (t) => {
  const { backend, send } = await fixture(t);
  const body = randomBytes(3 * MiB);
  const pieces = Array.from({ length: 4 }, (_, index) =>
    body.subarray((index * body.length) / 4, ((index + 1) * body.length) / 4),
  );
  const fields = { contentType: 'image/png', length: body.length, filename: 'a.png', etag: 'abc', count: 3 };
  const [first, ...rest] = pieces as [Buffer, ...Buffer[]];
  backend.sender = sending(content(fields, first), ...rest.map((piece) => content({}, piece)));
  const answer = await send('GET /v1/raw/a%20b/content?unknown=1', { headers: { range: 'bytes=0-', 'x-count': '7' } });
  t.is(answer.status, 200, answer.text);
  t.like(answer.headers, {
    'content-type': 'image/png',
    'content-length': String(body.length),
    'content-disposition': 'attachment; filename=a.png',
    etag: '"abc"',
    'x-count': '3',
    'x-content-type-options': 'nosniff',
    'cache-control': 'private, no-cache',
  });
  t.true(answer.bytes.equals(body));
  t.deepEqual(backend.calls[0]?.request, { name: 'a b', range: 'bytes=0-', count: 7 });
  t.true(Number(backend.calls[0]?.deadline) > Date.now() + 30_000, 'the proto gives it a minute');
});

test('download: without a length it is chunked, and what is empty is no header', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = sending(content({}), content({}, Buffer.from('a')), content({}, Buffer.from('b')));
  const answer = await send('GET /v1/raw/a/content');
  t.is(answer.text, 'ab');
  t.is(answer.headers['transfer-encoding'], 'chunked');
  t.is(answer.headers['content-type'], 'application/octet-stream');
  for (const header of ['content-length', 'content-disposition', 'etag', 'content-range', 'x-count']) {
    t.false(header in answer.headers, header);
  }
});

test('download: nothing at all is a body of no bytes', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = sending(content({ length: 0 }));
  const answer = await send('GET /v1/raw/a/content');
  t.is(answer.status, 200);
  t.is(answer.headers['content-length'], '0');
});

test('download: a range is 206', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = sending(content({ length: 2, range: 'bytes 1-2/5' }), content({}, Buffer.from('el')));
  const answer = await send('GET /v1/raw/a/content', { headers: { range: 'bytes=1-2' } });
  t.is(answer.status, 206);
  t.is(answer.headers['content-range'], 'bytes 1-2/5');
  t.is(answer.text, 'el');
});

test('download: HEAD answers with the headers alone, ignores a range, and cancels the call', async (t) => {
  const { backend, send } = await fixture(t);
  const cancelled = Promise.withResolvers<void>();
  backend.sender = (call) => {
    call.on('error', () => {});
    call.on('cancelled', () => cancelled.resolve());
    call.write(content({ length: 5, contentType: 'text/plain' }));
  };
  const answer = await send('HEAD /v1/raw/a/content', { headers: { range: 'bytes=1-2' } });
  t.is(answer.status, 200);
  t.like(answer.headers, { 'content-length': '5', 'content-type': 'text/plain' });
  t.is(answer.text, '');
  await cancelled.promise;
  t.deepEqual(backend.calls[0]?.request, { name: 'a' });
});

test('download: an entity tag that the client has is 304 without a body, any other is not', async (t) => {
  const { backend, send } = await fixture(t);
  for (const known of ['"abc"', 'W/"abc"', '"x", "abc"', '*']) {
    const answer = await send('GET /v1/raw/a/content', { headers: { 'if-none-match': known } });
    t.is(answer.status, 304, known);
    t.is(answer.text, '');
    t.is(answer.headers.etag, '"abc"');
    t.false('content-length' in answer.headers);
  }
  for (const other of ['"ab"', 'abc', '"abcd"', '']) {
    t.is((await send('GET /v1/raw/a/content', { headers: { 'if-none-match': other } })).status, 200, other);
  }
  backend.sender = sending(content({}, Buffer.from('a')));
  t.is((await send('GET /v1/raw/a/content', { headers: { 'if-none-match': '""' } })).status, 200);
});

test('download: conditions come in the order of RFC 9110, before ranges', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = (call) => {
    const { range } = backend.calls.at(-1)!.request as { range?: string };
    const isHead = call.metadata.get('x-head-only').length > 0;
    if (range === undefined || isHead)
      sending(content({ length: 10, etag: 'abc' }, Buffer.alloc(isHead ? 0 : 10)))(call);
    else failing(new HubError('OUT_OF_RANGE', 'NO_SUCH_RANGE', 'There is no such range'))(call);
  };
  const status = async (headers: Record<string, string>, method = 'GET') =>
    (await send(`${method} /v1/raw/a/content`, { headers })).status;
  const outside = { range: 'bytes=90-' };
  for (const method of ['GET', 'HEAD']) {
    for (const others of [{}, outside] as Record<string, string>[]) {
      t.is(await status({ ...others, 'if-match': '"x"' }, method), 412);
      t.is(await status({ ...others, 'if-match': 'W/"abc"' }, method), 412);
      t.is(await status({ ...others, 'if-none-match': '"abc"' }, method), 304);
      t.is(await status({ ...others, 'if-match': '"abc"', 'if-none-match': 'W/"abc"' }, method), 304);
      t.is(await status({ ...others, 'if-match': '"x"', 'if-none-match': '"abc"' }, method), 412);
    }
    t.is(await status({ 'if-match': '"abc"' }, method), 200);
    t.is(await status({ 'if-match': '*' }, method), 200);
  }
  for (const met of [{}, { 'if-match': '"abc"' }, { 'if-none-match': '"x"' }] as Record<string, string>[]) {
    const answer = await send('GET /v1/raw/a/content', { headers: { ...outside, ...met } });
    t.is(answer.status, 416);
    t.is(answer.headers['content-range'], 'bytes */10');
    t.like(answer.json, { error_code: 'NO_SUCH_RANGE' });
  }
});

for (const [given, expected] of [
  ['report.pdf', 'report.pdf'],
  ['a"b.txt', 'a"b.txt'],
  ['../../etc/passwd', 'passwd'],
  ['C:\\Users\\a\\b.txt', 'b.txt'],
  ['folder/', 'folder'],
  ['/', 'download'],
  ['..', 'download'],
  ['a/..', 'download'],
  ['a\r\nSet-Cookie: b=c', 'aSet-Cookie: b=c'],
  ['\u0000\u007f\u009f', 'download'],
  ['gnp.\u202eexe', 'gnp.exe'],
  ['👩‍🚀 ção.png', '👩‍🚀 ção.png'],
  ['50% off %41.txt', '50% off %41.txt'],
  ["it's; a=b, c.txt", "it's; a=b, c.txt"],
  ['  ', 'download'],
  [`${'é'.repeat(125)}.bin!`, `${'é'.repeat(125)}.bin!`],
] as const) {
  test(`download: the filename ${JSON.stringify(given)} is offered as ${JSON.stringify(expected)}`, async (t) => {
    const { backend, send } = await fixture(t);
    backend.sender = sending(content({ filename: given }));
    const answer = await send('GET /v1/raw/a/content');
    const header = answer.headers['content-disposition'] as string;
    t.regex(header, /^attachment; filename/);
    t.regex(header, /^[\x20-\x7e]+$/);
    t.is(parse(header).parameters['filename'], expected, header);
  });
}

test('download: what makes no header is left out, and a strange type is bytes', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = sending(content({ contentType: 'text/html\r\nX: y', etag: 'a"b', range: 'bytes\n1', length: -1 }));
  const answer = await send('GET /v1/raw/a/content');
  t.is(answer.status, 200);
  t.is(answer.headers['content-type'], 'application/octet-stream');
  for (const header of ['x', 'etag', 'content-range', 'content-length']) t.false(header in answer.headers, header);
});

test('download: an error before the first message is a problem, with the status in the proto', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = failing(new HubError('OUT_OF_RANGE', 'NO_SUCH_RANGE', 'There is no such range'));
  const range = await send('GET /v1/raw/a/content');
  t.is(range.status, 416);
  t.like(range.json, { title: 'Range Not Satisfiable', error_code: 'NO_SUCH_RANGE' });
  backend.sender = failing(new HubError('OUT_OF_RANGE', 'OTHER', 'Something else'));
  t.is((await send('GET /v1/raw/a/content')).status, 400);
  backend.sender = sending();
  t.is((await send('GET /v1/raw/a/content')).status, 500);
});

test('download: wrong fields are named, also those in headers', async (t) => {
  const { backend, send } = await fixture(t);
  backend.violations = [{ field: 'range', description: 'is too long' }];
  const answer = await send('GET /v1/raw/a/content', { headers: { 'x-count': 'many', range: 'bytes=0-1' } });
  t.is(answer.status, 400);
  t.deepEqual(answer.json['field_errors'], {
    'x-count': ['must be a whole number'],
    range: ['is too long'],
  });
});

for (const [what, sender] of [
  [
    'an error',
    failing(new HubError('UNAVAILABLE', 'GONE', 'Gone'), content({ length: 9 }), content({}, Buffer.from('hello'))),
  ],
  [
    'an error without a length',
    failing(new HubError('INTERNAL', 'X', 'X'), content({}), content({}, Buffer.from('hello'))),
  ],
  ['fewer bytes than were said', sending(content({ length: 9 }), content({}, Buffer.from('hello')))],
  ['more bytes than were said', sending(content({ length: 3 }), content({}, Buffer.from('hello')))],
] as const) {
  test(`download: ${what} in the middle breaks the connection off`, async (t) => {
    const { backend, gateway } = await fixture(t);
    backend.sender = sender;
    const { socket, until } = await dial(gateway.port);
    socket.write('GET /v1/raw/a/content HTTP/1.1\r\nHost: a\r\n\r\n');
    const [head = '', body = ''] = (await until('end')).split('\r\n\r\n');
    // With an error the little that was sent may be lost, but never is it an end.
    t.notRegex(body, /(^|\r\n)0$/);
    t.true(/^content-length: 3/im.test(head) ? body === '' : !body.endsWith('\r\n0') && body.length < 12, body);
  });
}

test('download: a client that goes away cancels the call', async (t) => {
  const { backend, gateway } = await fixture(t);
  const cancelled = Promise.withResolvers<void>();
  backend.sender = (call) => {
    call.on('error', () => {});
    call.on('cancelled', () => cancelled.resolve());
    call.write(content({}, Buffer.from('hello')));
  };
  const response = await ask(gateway.port);
  response.on('error', () => {});
  response.destroy();
  await cancelled.promise;
  t.pass();
});

/** Sends so many MiB as fast as they are taken, and counts them. */
function pouring(amount: number, about: { taken: number; cancelled?: () => void }) {
  const piece = content({}, randomBytes(MiB));
  return (call: Sending) => {
    call.on('error', () => {});
    call.on('cancelled', () => about.cancelled?.());
    call.write(content({ length: amount * MiB }));
    const pour = () => {
      while (about.taken < amount) {
        about.taken += 1;
        if (!call.write(piece)) {
          call.once('drain', pour);
          return;
        }
      }
      call.end();
    };
    pour();
  };
}

test('download: the backend is read no faster than the client reads, and others are not held up', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  const about = { taken: 0 };
  backend.sender = pouring(200, about);
  const response = await ask(gateway.port);
  let before = -1;
  await eventually(
    'what is taken',
    async () => {
      backend.sender = undefined;
      for (let count = 0; count < 10; count++) t.is((await send('GET /v1/raw/a/content')).text, 'hello');
      const isSteady = about.taken === before;
      before = about.taken;
      return isSteady;
    },
    Boolean,
  );
  // Of these most is what systems hold for a connection, and what gRPC holds on the backend's side.
  t.true(about.taken < 60, `${about.taken} MiB`);
  let received = 0;
  for await (const chunk of response) received += (chunk as Buffer).length;
  t.is(received, 200 * MiB);
});

test('download: a client that takes nothing is cut off, and the call cancelled', async (t) => {
  const { backend, gateway } = await fixture(t, {}, { ...patient, downloadIdle: 100 });
  const cancelled = Promise.withResolvers<void>();
  backend.sender = pouring(200, { taken: 0, cancelled: () => cancelled.resolve() });
  const response = await ask(gateway.port);
  await cancelled.promise;
  response.on('error', () => {});
  const failed = once(response, 'error');
  response.resume();
  t.truthy(await failed);
});

test('download: a client that has to wait for the backend is not cut off', async (t) => {
  const { backend, gateway } = await fixture(t, {}, { ...patient, downloadIdle: 50 });
  backend.sender = (call) => {
    call.write(content({ length: 10 }, Buffer.from('hello')));
    // Several times as long as a client may be idle.
    setTimeout(() => {
      call.write(content({}, Buffer.from('world')));
      call.end();
    }, 300);
  };
  const response = await ask(gateway.port);
  let text = '';
  for await (const chunk of response) text += String(chunk);
  t.is(text, 'helloworld');
});
