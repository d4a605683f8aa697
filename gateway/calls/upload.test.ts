import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  createServer,
  request as httpRequest,
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { Metadata } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { HubError } from '#lib/errors.ts';
import { toStatus } from '#lib/rpc/status.ts';
import { freePorts } from '../../dev/ports.ts';
import type { EchoBackend, EchoUpload } from '../../test/echo-backend.ts';
import { dial, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';

const MiB = 1024 * 1024;
const octets = { 'content-type': 'application/octet-stream' };
const patient = { uploadIdle: 30_000, downloadIdle: 60_000 };

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The bytes of a form with these parts: name, what follows it in the header, and content. */
function form(...parts: [name: string, more: string, content: Buffer | string][]) {
  const pieces = parts.flatMap(([name, more, content]) => [
    `--frontier\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n`,
    content,
    '\r\n',
  ]);
  const body = Buffer.concat([...pieces, '--frontier--\r\n'].map((piece) => Buffer.from(piece as string)));
  return { body, headers: { 'content-type': 'multipart/form-data; boundary=frontier' } };
}

/** Begins to send a request, and leaves its body to the test. */
function begin(port: number, headers: Record<string, string | number> = {}, path = '/v1/raw/upload') {
  const request = httpRequest({ port, host: '127.0.0.1', method: 'PATCH', path, agent: false, headers });
  request.on('error', () => {});
  const answer = (once(request, 'response') as Promise<[IncomingMessage]>).then(async ([response]) => ({
    response,
    json: await jsonOf(response),
  }));
  // Of a connection that is cut there is none.
  answer.catch(() => {});
  return { request, answer };
}

async function jsonOf(response: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
}

function firstUpload(backend: EchoBackend): Promise<EchoUpload> {
  return eventually(
    'an upload',
    () => backend.uploads[0],
    (found) => found !== undefined,
  ) as Promise<EchoUpload>;
}

/** Hands all bytes to a request, as fast as it takes them, until it is closed. */
async function pour(request: ClientRequest, bytes: Buffer): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    request.on('close', resolve);
  });
  for (let at = 0; at < bytes.length && !request.destroyed; at += MiB) {
    const written = new Promise<void>((resolve) => {
      request.write(bytes.subarray(at, at + MiB), () => resolve());
    });
    await Promise.race([written, closed]);
  }
}

test('upload: the fields come first, then the body in pieces, and the answer is as of any other RPC', async (t) => {
  const { backend, send } = await fixture(t);
  const body = randomBytes(5 * MiB + 3);
  const headers = { ...octets, 'content-digest': 'sha-256=:x:' };
  const answer = await send('PATCH /v1/raw/upload?name=a%20b&index=0&unknown=1', { body, headers });
  t.is(answer.status, 201, answer.text);
  t.is(answer.headers['content-type'], 'application/json');
  t.deepEqual(answer.json, { name: 'a b', size: body.length, sha256: sha256(body) });
  const [upload] = backend.uploads as [EchoUpload];
  t.deepEqual(upload.request, { name: 'a b', index: 0, digest: 'sha-256=:x:', length: String(body.length) });
  t.is(upload.pieces[0], 0);
  t.true(upload.pieces.every((length) => length <= MiB));
  t.true(upload.deadline > Date.now() + 30_000, 'the proto gives it a minute');
});

for (const [what, headers] of [
  ['no type', {}],
  ['the type that curl sends', { 'content-type': 'application/x-www-form-urlencoded' }],
  ['text', { 'content-type': 'text/plain; charset=utf-8' }],
] as const) {
  test(`upload: a body of ${what} is raw bytes`, async (t) => {
    const { backend, gateway } = await fixture(t);
    const { request, answer } = begin(gateway.port, headers);
    request.end('{}');
    t.like((await answer).json, { size: 2 });
    t.is(backend.calls[0]?.method, 'Receive');
  });
}

test('upload: an empty body, a body without a length, and one of a byte', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  t.like((await send('PATCH /v1/raw/upload')).json, { size: 0, sha256: sha256(Buffer.alloc(0)) });
  t.deepEqual(backend.uploads[0]?.request, { length: '0' });
  t.like((await send('PATCH /v1/raw/upload', { body: 'x', headers: octets })).json, { size: 1 });

  const { request, answer } = begin(gateway.port, octets);
  const body = randomBytes(2 * MiB);
  await pour(request, body);
  request.end();
  t.like((await answer).json, { size: body.length, sha256: sha256(body) });
  t.deepEqual(backend.uploads[2]?.request, {});
});

test('upload: JSON goes to the RPC at the same path that takes it, and is raw bytes where there is none', async (t) => {
  const { backend, send } = await fixture(t);
  const asJson = { body: '{"count": 3}', headers: { 'content-type': 'application/json; charset=utf-8' } };
  t.is((await send('PATCH /v1/raw/upload?name=a', asJson)).status, 200);
  t.like(backend.calls[0], { method: 'Ask', request: { name: 'a', options: { count: 3 } } });
  t.is((await send('PATCH /v1/raw/upload', { ...asJson, body: '{' })).json['error_code'], 'MALFORMED_JSON');
  t.like((await send('PUT /v1/raw/upload?name=a', asJson)).json, { name: 'a', size: 12 });
  t.is(backend.calls[1]?.method, 'Replace');
});

test('upload: other methods at its path are 405, not what a variable would fit', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('GET /v1/raw/upload');
  t.is(answer.status, 405);
  t.is(answer.headers.allow, 'OPTIONS, PATCH, PUT');
  t.is((await send('OPTIONS /v1/raw/upload')).headers.allow, 'OPTIONS, PATCH, PUT');
  t.is((await send('GET /v1/raw/uploads')).status, 200);
});

test('upload: of a form the part called file is the body, wherever it stands', async (t) => {
  const { backend, send } = await fixture(t);
  const content = randomBytes(3 * MiB);
  const answer = await send(
    'PATCH /v1/raw/upload?name=a',
    form(
      ['before', '', 'x'.repeat(10_000)],
      ['other', '; filename="o"', randomBytes(MiB)],
      ['file', '; filename="a.bin"\r\nContent-Type: image/png', content],
      ['after', '; filename="p"', randomBytes(MiB)],
    ),
  );
  t.deepEqual(answer.json, { name: 'a', size: content.length, sha256: sha256(content) }, answer.text);
  t.deepEqual(backend.uploads[0]?.request, { name: 'a' }, 'the length is that of the form');
  t.like((await send('PATCH /v1/raw/upload', form(['file', '; filename="e"', '']))).json, { size: 0 });
  t.like((await send('PATCH /v1/raw/upload', form(['file', '', 'xyz']))).json, { size: 3 }, 'without a filename');
});

for (const [what, sent, errors] of [
  ['no part called file', form(['other', '; filename="a"', 'x']), ['is required']],
  ['no part at all', form(), ['is required']],
  ['two of them', form(['file', '; filename="a"', 'x'], ['file', '; filename="b"', 'y']), ['must be given once']],
] as const) {
  test(`upload: a form with ${what} names the field, and is no whole upload`, async (t) => {
    const { backend, send } = await fixture(t);
    const answer = await send('PATCH /v1/raw/upload', sent);
    t.is(answer.status, 400, answer.text);
    t.deepEqual(answer.json['field_errors'], { file: errors });
    await eventually('the upload', () => backend.uploads[0]?.isCancelled, Boolean);
    t.false(backend.uploads[0]?.isWhole);
  });
}

test('upload: the digest of a form is that of all of it, as it is sent', async (t) => {
  const { backend, send } = await fixture(t);
  const sent = form(['file', '; filename="a"', 'hello'], ['after', '', 'x']);
  const digestOf = (body: string | Buffer) => `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
  const upload = (digest: string) =>
    send('PATCH /v1/raw/upload', { ...sent, headers: { ...sent.headers, 'content-digest': digest } });
  t.like((await upload(digestOf(sent.body))).json, { size: 5 });
  t.false('digest' in (backend.calls[0]!.request as object));
  const other = await upload(digestOf('hello'));
  t.like(other.json, { status: 400, error_code: 'DIGEST_MISMATCH' });
  await eventually('the end', () => backend.uploads.at(-1)?.isCancelled, Boolean);
  t.false(backend.uploads.at(-1)?.isWhole);
  const nonsense = await upload('nonsense');
  t.is(nonsense.status, 400);
  t.deepEqual(Object.keys(nonsense.json['field_errors'] as object), ['content-digest']);
});

test('upload: a form that is cut off or has no boundary is 400', async (t) => {
  const { backend, send } = await fixture(t);
  const whole = form(['file', '; filename="a"', 'x'.repeat(1_000)]);
  for (const sent of [
    { ...whole, body: whole.body.subarray(0, 500) },
    { ...whole, body: whole.body.subarray(0, -8) },
    { ...whole, headers: { 'content-type': 'multipart/form-data' } },
  ]) {
    const answer = await send('PATCH /v1/raw/upload', sent);
    t.is(answer.status, 400);
    t.is(answer.json['error_code'], 'MALFORMED_FORM');
  }
  t.true(backend.uploads.every((upload) => !upload.isWhole));
});

test('upload: a compressed body is 415', async (t) => {
  const { backend, send } = await fixture(t);
  const headers = { ...octets, 'content-encoding': 'gzip' };
  t.is((await send('PATCH /v1/raw/upload', { body: 'x', headers })).status, 415);
  t.deepEqual(backend.calls, []);
});

test('upload: all wrong fields are named at once, as they were sent, and the body is not passed on', async (t) => {
  const { backend, send } = await fixture(t);
  backend.violations = [
    { field: 'digest', description: 'is not understood' },
    { field: 'index', description: 'is required' },
  ];
  const headers = { ...octets, 'content-digest': 'x' };
  const answer = await send('PATCH /v1/raw/upload?index=abc&name=a&name=b', { body: 'body', headers });
  t.is(answer.status, 400);
  t.deepEqual(answer.json['field_errors'], {
    index: ['must be a whole number'],
    name: ['must be given once'],
    'content-digest': ['is not understood'],
  });
  t.deepEqual(backend.uploads[0]?.pieces, [0]);
});

test('upload: what a header says can not be said in the query', async (t) => {
  const { backend, send } = await fixture(t);
  await send('PATCH /v1/raw/upload?length=7&digest=x', { body: 'body', headers: octets });
  t.deepEqual(backend.uploads[0]?.request, { length: '4' });
});

test('upload: a service without our options hears nothing of a request with wrong fields', async (t) => {
  const { backend, send } = await fixture(t);
  const wrong = await send('POST /v1/foreign/raw?index=abc', { body: 'x', headers: octets });
  t.deepEqual(Object.keys(wrong.json['field_errors'] as object), ['index']);
  t.deepEqual(backend.calls, []);
  t.deepEqual((await send('POST /v1/foreign/raw', form())).json['field_errors'], { file: ['is required'] });
  t.like((await send('POST /v1/foreign/raw', { body: 'x', headers: octets })).json, { size: 1 });
});

test('upload: the client is read no faster than the backend reads', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  backend.receiver = ({ stream }) => {
    stream.pause();
    return false;
  };
  const body = randomBytes(96 * MiB);
  const { request, answer } = begin(gateway.port, { ...octets, 'content-length': body.length });
  const poured = pour(request, body);
  const { stream } = await firstUpload(backend);
  // What is on the way fills the windows and buffers, and then nothing goes on.
  const taken = () => (request.socket?.bytesWritten ?? 0) - (request.socket?.writableLength ?? 0);
  let before = -1;
  await eventually(
    'bytes that are taken',
    async () => {
      for (let count = 0; count < 10; count++) await send('GET /v1/raw/a');
      const now = taken();
      const isSteady = now === before && now > 0;
      before = now;
      return isSteady;
    },
    Boolean,
  );
  t.true(taken() < 48 * MiB, `${taken()} bytes`);
  stream.resume();
  await poured;
  request.end();
  t.like((await answer).json, { size: body.length, sha256: sha256(body) });
});

test('upload: a body that is cut off cancels the call, and never looks complete', async (t) => {
  const { backend, gateway } = await fixture(t);
  const head = 'PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\n';
  for (const [index, [start, cut]] of [
    ['Content-Length: 1000\r\n\r\n12345', 'destroy'],
    ['Content-Length: 1000\r\n\r\n12345', 'end'],
    ['Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n', 'destroy'],
    ['Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n', 'end'],
    ['Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n', 'nothing'],
    [
      'Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n' +
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n12345\r\n--b--\r\n',
      'end',
    ],
  ].entries()) {
    const { socket } = await dial(gateway.port);
    socket.write(`${head}${start}`);
    const upload = await eventually('an upload', () => backend.uploads[index], Boolean);
    await eventually(
      'a piece',
      () => upload?.pieces.reduce((sum, length) => sum + length, 0),
      (sum) => sum === 5,
    );
    if (cut === 'destroy') socket.destroy();
    else if (cut === 'end') socket.end();
    await eventually('the end', () => upload?.isCancelled, Boolean);
    t.false(upload?.isWhole);
    socket.destroy();
  }
});

test('upload: a client that goes away after the body cancels the call', async (t) => {
  const { backend, gateway } = await fixture(t);
  backend.receiver = ({ stream }) => {
    stream.sendMetadata(new Metadata());
    return true;
  };
  const { request } = begin(gateway.port, octets);
  request.end('body');
  const upload = await firstUpload(backend);
  await eventually('the body', () => upload.isWhole, Boolean);
  request.destroy();
  await eventually('the end', () => upload.isCancelled, Boolean);
  t.pass();
});

test('upload: an error of the backend is answered while the client still sends, with the status in the proto', async (t) => {
  const { backend, gateway } = await fixture(t);
  backend.receiver = ({ answer }) => {
    answer({ ...toStatus(new HubError('OUT_OF_RANGE', 'TOO_LARGE', 'That is too large')) });
    return true;
  };
  // Far more than the buffers on the way hold: the client hears of it in the middle.
  const { request, answer } = begin(gateway.port, { ...octets, 'content-length': 10_000 * MiB });
  request.write(randomBytes(MiB));
  const { response, json } = await answer;
  t.is(response.statusCode, 413);
  t.is(response.headers.connection, 'close');
  t.like(json, { title: 'Payload Too Large', error_code: 'TOO_LARGE', detail: 'That is too large' });
  await pour(request, randomBytes(8 * MiB));
  request.destroy();
});

test('upload: an error is read by a client that sends all before it looks', async (t) => {
  const { backend, gateway } = await fixture(t);
  backend.receiver = ({ answer }) => {
    answer({ ...toStatus(new HubError('ABORTED', 'DONE', 'It is done')) });
    return true;
  };
  const { socket } = await dial(gateway.port);
  const size = 24 * MiB;
  socket.pause();
  socket.write(`PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`);
  await new Promise<void>((resolve, reject) => {
    socket.write(Buffer.alloc(size), (error) => (error ? reject(error) : resolve()));
  });
  const head = once(socket, 'data') as Promise<[Buffer]>;
  socket.resume();
  t.regex((await head).toString(), /^HTTP\/1.1 409 /);
});

test('upload: a client that never stops is cut off, and one with little left may use its connection on', async (t) => {
  const { backend, gateway } = await fixture(t);
  backend.receiver = ({ answer }) => {
    answer({ ...toStatus(new HubError('ABORTED', 'DONE', 'It is done')) });
    return true;
  };
  const endless = begin(gateway.port, octets);
  const gone = once(endless.request, 'close');
  await pour(endless.request, Buffer.alloc(200 * MiB));
  await gone;

  const { socket, until } = await dial(gateway.port);
  socket.write('PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n12345');
  await until(/"error_code":"DONE"/);
  socket.write('x'.repeat(995));
  socket.write('GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  t.regex(await until('end'), /HTTP\/1\.1 200 /);
});

test('upload: Expect: 100-continue is answered when the backend wants the body', async (t) => {
  const { backend, gateway } = await fixture(t);
  backend.receiver = () => true;
  const head =
    'PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nX-Request-ID: one\r\n\r\n';
  const { socket, until } = await dial(gateway.port);
  let received = '';
  socket.on('data', (chunk: Buffer) => (received += chunk.toString()));
  socket.write(head);
  const upload = await firstUpload(backend);
  t.is(received, '');
  upload.stream.sendMetadata(new Metadata());
  await until(/HTTP\/1\.1 100 Continue\r\n\r\n/);
  socket.write('body');
  await eventually('the body', () => upload.isWhole, Boolean);
  upload.answer(null, Buffer.alloc(0));
  await until(/HTTP\/1\.1 201 /);

  backend.receiver = undefined;
  socket.write(head);
  await until(/HTTP\/1\.1 201 [^]*HTTP\/1\.1 100 /);
  socket.write('body');
  await until(/"size":4/);
  socket.destroy();
});

test('upload: Expect: 100-continue is answered with the error, and the body is never read', async (t) => {
  const { backend, gateway } = await fixture(t);
  const head = (query: string) =>
    `PATCH /v1/raw/upload${query} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n`;
  const wrong = await dial(gateway.port);
  wrong.socket.write(head('?index=abc'));
  t.regex(await wrong.until('end'), /^HTTP\/1\.1 400 /);

  backend.receiver = ({ answer }) => {
    answer({ ...toStatus(new HubError('UNAUTHENTICATED', 'TOKEN_MISSING', 'Log in first')) });
    return true;
  };
  const refused = await dial(gateway.port);
  refused.socket.write(head(''));
  const answer = await refused.until('end');
  t.regex(answer, /^HTTP\/1\.1 401 /);
  t.regex(answer, /^connection: close/im);
});

test('upload: a client that sends nothing for a while is 408, and the call cancelled', async (t) => {
  const { backend, gateway, send } = await fixture(t, {}, { ...patient, uploadIdle: 300 });
  // From here on there is a connection to the backend.
  await send('PATCH /v1/raw/upload', { body: 'x', headers: octets });
  const { socket, until } = await dial(gateway.port);
  socket.write('PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345');
  const answer = await until('end');
  t.regex(answer, /^HTTP\/1\.1 408 /);
  t.regex(answer, /REQUEST_TIMEOUT/);
  await eventually('the end', () => backend.uploads[1]?.isCancelled, Boolean);
  t.false(backend.uploads[1]?.isWhole);
});

test('upload: a client that has to wait for the backend is not given up', async (t) => {
  const { backend, gateway, send } = await fixture(t, {}, { ...patient, uploadIdle: 1_000 });
  await send('PATCH /v1/raw/upload', { body: 'x', headers: octets });
  backend.receiver = ({ stream }) => {
    stream.pause();
    // Several times as long as a client may be idle.
    setTimeout(() => stream.resume(), 3_000);
    return false;
  };
  const body = randomBytes(32 * MiB);
  const { request, answer } = begin(gateway.port, { ...octets, 'content-length': body.length });
  request.end(body);
  t.like((await answer).json, { size: body.length });
});

test('upload: a body that is not there at the deadline is 504, and never looks complete', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  await send('PATCH /v1/raw/upload', { body: 'x', headers: octets });
  const { socket, until } = await dial(gateway.port);
  socket.write('PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nGrpc-Timeout: 300m\r\nContent-Length: 10\r\n\r\n12345');
  t.regex(await until(/DEADLINE_EXCEEDED/), /^HTTP\/1\.1 504 /);
  await eventually('the end', () => backend.uploads[1]?.isCancelled, Boolean);
  t.false(backend.uploads[1]?.isWhole);
  socket.destroy();
});

/** A place that bodies are put to: what it has received, and how it answers. */
async function startPlace(
  t: ExecutionContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void = (_, response) => response.end(),
  port = 0,
) {
  const bodies: Buffer[] = [];
  let cutOff = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('error', () => (cutOff += 1));
    request.on('end', () => bodies.push(Buffer.concat(chunks)));
    answer(request, response);
  });
  server.on('checkContinue', (request, response) => server.emit('request', request, response));
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/place?signature=secret`;
  return { url, bodies, cutOff: () => cutOff };
}

/** Takes the whole body and is content with it. */
function take(request: IncomingMessage, response: ServerResponse): void {
  response.writeContinue();
  request.on('end', () => response.end());
}

/** Lets a backend name a place for each body. It answers as the echo does: with how much came to itself. */
function naming(url: string): EchoBackend['receiver'] {
  return ({ stream }) => {
    const location = new Metadata();
    location.set('x-body-location', url);
    stream.sendMetadata(location);
    return false;
  };
}

test('hand-over: a body goes where the backend says, and the client hears nothing of the place', async (t) => {
  const place = await startPlace(t, take);
  const { backend, send } = await fixture(t);
  backend.receiver = naming(place.url);
  const body = randomBytes(5 * MiB + 3);
  for (let time = 1; time <= 2; time++) {
    const answer = await send('PATCH /v1/raw/upload', { body, headers: octets });
    t.is(answer.status, 201, answer.text);
    t.like(answer.json, { size: 0 }, 'nothing came to the backend itself');
    t.false(JSON.stringify(answer.headers).includes('secret'));
    t.true(place.bodies[time - 1]?.equals(body));
  }
  t.deepEqual(backend.uploads[0]?.metadata.get('x-body-hand-over'), ['put']);
});

test('hand-over: is offered for bodies of a known length, and not at the word of a client', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  const { request, answer } = begin(gateway.port, { ...octets, 'grpc-metadata-x-body-hand-over': 'put' });
  request.write('without a length');
  request.end();
  t.is((await answer).response.statusCode, 201);
  await send('PATCH /v1/raw/upload', form(['file', '; filename="a"', 'of a form']));
  await send('PATCH /v1/raw/upload', { headers: octets });
  t.is(backend.uploads.length, 3);
  for (const { metadata } of backend.uploads) t.deepEqual(metadata.get('x-body-hand-over'), []);
});

test('hand-over: what the place does not want, or where nobody is, goes to the backend after all', async (t) => {
  const refusing = await startPlace(t, (_, response) => response.writeHead(403).end());
  const silent = await startPlace(t, (request) => request.socket.destroy());
  const { backend, send } = await fixture(t);
  const body = randomBytes(2 * MiB);
  for (const url of [
    refusing.url,
    silent.url,
    'http://127.0.0.1:1/',
    'http://127.0.0.1:1/again',
    'ftp://a/',
    'no URL',
  ]) {
    backend.receiver = naming(url);
    const answer = await send('PATCH /v1/raw/upload', { body, headers: octets });
    t.like(answer.json, { size: body.length, sha256: sha256(body) }, url);
  }
});

test('hand-over: a place where nobody could be reached is left alone for a while, and tried by nobody', async (t) => {
  const [port] = (await freePorts(1)) as [number];
  const { backend, send } = await fixture(t);
  backend.receiver = naming(`http://127.0.0.1:${port}/place`);
  const upload = () => send('PATCH /v1/raw/upload', { body: 'body', headers: octets });
  t.like((await upload()).json, { size: 4 });
  const place = await startPlace(t, take, port);
  t.like((await upload()).json, { size: 4 });
  t.deepEqual(place.bodies, []);
});

for (const [what, answer] of [
  ['breaks off', (request) => request.once('data', () => request.socket.destroy())],
  ['answers with an error', (request, response) => request.on('end', () => response.writeHead(500).end())],
  ['answers before it has all', (request, response) => request.once('data', () => response.end())],
  ['takes no more', (request) => request.once('data', () => request.pause())],
  ['never answers', () => {}],
] satisfies [string, (request: IncomingMessage, response: ServerResponse) => void][]) {
  test(`hand-over: of a place that ${what} the backend is told by an empty piece, and has the last word`, async (t) => {
    const place = await startPlace(t, (request, response) => {
      response.writeContinue();
      answer(request, response);
    });
    const { backend, send } = await fixture(t, {}, { ...patient, uploadIdle: 500 });
    backend.receiver = (upload) => {
      naming(place.url)!(upload);
      upload.stream.on('end', () => {
        upload.answer({ ...toStatus(new HubError('UNAVAILABLE', 'STORE_AWAY', 'Send it again', { retryAfter: 3 })) });
      });
      return true;
    };
    const refusal = await send('PATCH /v1/raw/upload', { body: randomBytes(32 * MiB), headers: octets });
    t.is(refusal.status, 503, refusal.text);
    t.is(refusal.headers['retry-after'], '3');
    t.is(refusal.json['error_code'], 'STORE_AWAY');
    t.deepEqual(backend.uploads[0]?.pieces, [0, 0]);
  });
}

test('hand-over: a client that goes in the middle ends both sides, and neither has all', async (t) => {
  const place = await startPlace(t, take);
  const { backend, gateway } = await fixture(t);
  backend.receiver = naming(place.url);
  const { request } = begin(gateway.port, { ...octets, 'content-length': 10 * MiB });
  request.write(randomBytes(3 * MiB));
  const upload = await firstUpload(backend);
  await eventually(
    'bytes on their way',
    () => request.socket?.bytesWritten ?? 0,
    (count) => count > MiB,
  );
  request.destroy();
  await eventually('the end of the call', () => upload.isCancelled, Boolean);
  await eventually('the end of the body', place.cutOff, (count) => count === 1);
  t.false(upload.isWhole);
  t.deepEqual(place.bodies, []);
});

test('bodies: JSON that takes too long to arrive is 408', async (t) => {
  const { gateway } = await fixture(t, { REQUEST_TIMEOUT: '50ms' });
  const { socket, until } = await dial(gateway.port);
  socket.write('POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{');
  const answer = await until('end');
  t.regex(answer, /^HTTP\/1\.1 408 /);
  t.regex(answer, /^connection: close/im);
});
