import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import test, { type ExecutionContext, type ThrowsExpectation } from 'ava';
import { eventually } from '../test/eventually.ts';
import { Caller, type CallOptions, type ClientOptions, type Rpc } from './caller.ts';
import { ConnectionError, isRefused, outcomeOf, RefusedError, type Reply } from './errors.ts';
import { downloadFile } from './files.ts';
import type { Page } from './wire.ts';

/** A server that answers in its own way, until the test ends. @returns its URL */
async function serve(t: ExecutionContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const get = (path: string, more: Partial<Rpc> = {}): Rpc => ({ verb: 'GET', path, ...more });
const post = (path: string, more: Partial<Rpc> = {}): Rpc => ({ verb: 'POST', path, body: '*', ...more });
const call = (baseUrl: string, rpc: Rpc, options?: CallOptions, client?: ClientOptions): Promise<unknown> =>
  new Caller({ baseUrl, ...client }).reply(rpc, {}, options);

const away = { status: 503, detail: 'Away', error_code: 'AWAY' };

test('Caller: says that it sends JSON, and takes no body for an empty answer', async (t) => {
  const seen: IncomingMessage[] = [];
  const url = await serve(t, (request, response) => {
    seen.push(request);
    response.writeHead(204).end();
  });
  const own = { headers: { 'x-own': '1' } };
  t.deepEqual(await call(url, post('/x'), own, { headers: { 'x-own': '0', 'x-all': '2' } }), {});
  t.like(seen[0]?.headers, { 'content-type': 'application/json', 'x-own': '1', 'x-all': '2' });
  await call(`${url}/below/`, get('/x'));
  t.like(seen[1], { url: '/below/x', headers: { 'content-type': undefined } });
  for (const baseUrl of ['localhost:8000', 'ftp://x', 'http://', 'http://x?y']) {
    t.throws(() => new Caller({ baseUrl }), { instanceOf: TypeError, message: /baseUrl/ });
  }
});

test('Caller: a refusal is an Error with what the hub says, also where it was not the hub', async (t) => {
  const problem = {
    type: 'about:blank',
    title: 'Conflict',
    status: 409,
    detail: 'No',
    error_code: 'NO',
    request_id: '1',
    field_errors: { a: ['is silly', 'is long'] },
    retry_after: 3,
  };
  const url = await serve(t, (request, response) => {
    if (request.url === '/hub') response.writeHead(409, { 'content-type': 'application/problem+json' });
    else response.writeHead(502);
    response.end(request.url === '/hub' ? JSON.stringify(problem) : '<h1>Bad Gateway</h1>');
  });
  const refused = (path: string) => t.throwsAsync(call(url, get(path)), { instanceOf: RefusedError });
  const byHub = await refused('/hub');
  t.deepEqual([byHub?.status, byHub?.problem, byHub?.message], [409, problem, 'No (409 NO)']);
  t.like(byHub, { code: 'NO', requestId: '1', retryAfter: 3 });
  t.deepEqual(byHub?.details, [
    { field: 'a', message: 'is silly' },
    { field: 'a', message: 'is long' },
  ]);
  t.true(isRefused(byHub, 'YES', 'NO'));
  t.false(isRefused(byHub, 'YES'));
  t.false(isRefused(new Error('NO'), 'NO'));
  const byProxy = await refused('/proxy');
  t.deepEqual([byProxy?.status, byProxy?.problem, byProxy?.message], [502, undefined, 'HTTP 502']);
  t.like(byProxy, { code: undefined, details: [], requestId: undefined });
});

test('outcomeOf: a refusal is a value with the codes of its call, and what is no refusal is thrown', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/cut') request.socket.destroy();
    else response.writeHead(request.url === '/no' ? 503 : 200).end(JSON.stringify(away));
  });
  const outcome = (path: string) => outcomeOf(call(url, get(path)) as Reply<object, 'AWAY' | 'OTHER'>);
  t.deepEqual(await outcome('/yes'), { ok: true, value: away });
  const { ok, refusal } = await outcome('/no');
  // The type checker knows its codes.
  const code: 'AWAY' | 'OTHER' | undefined = refusal?.code;
  t.deepEqual([ok, code], [false, 'AWAY']);
  await t.throwsAsync(outcome('/cut'), { instanceOf: ConnectionError });
});

test('Caller: takes what is in an envelope out of it, with its page beside it', async (t) => {
  const meta = { request_id: '1', pagination: { offset: 0, limit: 2, total: 7 } };
  const answers: Record<string, string> = {
    '/one': JSON.stringify({ data: { a: 1 }, error: null, meta: { request_id: '1' } }),
    '/list': JSON.stringify({ data: [1, 2], error: null, meta }),
    '/none': '',
  };
  const url = await serve(t, (request, response) => void response.end(answers[request.url!]));
  const enveloped = (path: string) => call(url, get(path, { isEnveloped: true }));
  t.deepEqual(await enveloped('/one'), { a: 1 });
  t.deepEqual(await enveloped('/none'), {});
  const list = (await enveloped('/list')) as Page<number[], { total: number }>;
  t.deepEqual([...list], [1, 2]);
  t.is(list.pagination.total, 7);
  t.is(JSON.stringify(list), '[1,2]');
});

test('Caller: a refusal in an envelope has its code, its details and the id of the request', async (t) => {
  const details = [{ field: 'name', message: 'is required', rule: 'required' }];
  const error = { code: 'VALIDATION_ERROR', message: 'Some fields are not valid: name', details };
  const url = await serve(t, (request, response) => {
    const isBusy = request.url === '/busy';
    response.writeHead(isBusy ? 503 : 400, isBusy ? { 'retry-after': '7' } : {});
    const refused = isBusy ? { ...error, code: 'UNAVAILABLE', details: [] } : error;
    response.end(JSON.stringify({ data: null, error: refused, meta: { request_id: 'r1' } }));
  });
  const refused = (path: string) =>
    t.throwsAsync(call(url, get(path, { isEnveloped: true })), { instanceOf: RefusedError });
  t.like(await refused('/'), {
    message: 'Some fields are not valid: name (400 VALIDATION_ERROR)',
    status: 400,
    code: 'VALIDATION_ERROR',
    details,
    requestId: 'r1',
    retryAfter: undefined,
    problem: undefined,
  });
  t.like(await refused('/busy'), { status: 503, code: 'UNAVAILABLE', details: [], retryAfter: 7 });
});

test('RefusedError: Retry-After may be a date', (t) => {
  const inAMinute = new Date(Date.now() + 60_000).toUTCString();
  const { retryAfter } = new RefusedError(503, undefined, inAMinute);
  t.true(retryAfter! > 55 && retryAfter! <= 60, String(retryAfter));
  for (const [header, seconds] of [
    ['7', 7],
    ['Mon, 01 Jan 2024 00:00:00 GMT', 0],
    ['soon', undefined],
    [null, undefined],
  ] as const) {
    t.is(new RefusedError(503, undefined, header).retryAfter, seconds);
  }
});

test('Caller: an API key goes where the hub looks for it, and nowhere if anybody may call', async (t) => {
  const seen: IncomingMessage[] = [];
  const url = await serve(t, (request, response) => {
    seen.push(request);
    response.end('{}');
  });
  let asked = 0;
  const token = () => `t${(asked += 1)}`;
  await call(url, get('/'), {}, { apiKey: 'c4a_k' });
  t.is(seen[0]!.headers['x-api-key'], 'c4a_k');
  await call(url, get('/', { isPublic: true }), {}, { apiKey: 'c4a_k', token });
  t.like(seen[1]!.headers, { 'x-api-key': undefined, authorization: undefined });
  t.is(asked, 0);
});

test('Caller: a token is asked for once for all calls, and once more when it is not taken any more', async (t) => {
  let valid = 't1';
  let served = 0;
  const url = await serve(t, ({ headers }, response) => {
    served += 1;
    response.writeHead(headers.authorization === `Bearer ${valid}` ? 200 : 401).end('{}');
  });
  let asked = 0;
  const caller = new Caller({ baseUrl: url, token: async () => `t${(asked += 1)}` });
  const many = () => Promise.all(Array.from({ length: 5 }, () => caller.reply(post('/'), {})));
  await many();
  t.is(asked, 1);
  valid = 't2';
  served = 0;
  await many();
  t.deepEqual([asked, served], [2, 10]);
  valid = 'none';
  served = 0;
  t.is((await t.throwsAsync(caller.reply(post('/'), {}), { instanceOf: RefusedError }))?.status, 401);
  t.deepEqual([asked, served], [3, 2]);
});

test('Caller: a token that could not be had is asked for again by the next call, and is not waited for longer than that', async (t) => {
  const url = await serve(t, (_request, response) => void response.end('{}'));
  const given = [Promise.reject(new Error('no network')), new Promise<string>(() => {})];
  given[0]!.catch(() => {});
  const caller = new Caller({ baseUrl: url, token: () => given.shift()! });
  await t.throwsAsync(caller.reply(get('/'), {}), { message: 'no network' });
  await t.throwsAsync(caller.reply(get('/'), {}, { timeout: 50 }), { name: 'TimeoutError' });
});

test('Caller: gives up after the timeout, in the midst of an answer too, and when its caller does', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/half') response.write('{"a":');
  });
  await t.throwsAsync(call(url, get('/silent'), { timeout: 50 }), { name: 'TimeoutError' });
  await t.throwsAsync(call(url, get('/silent', { timeout: 50 })), { name: 'TimeoutError' });
  await t.throwsAsync(call(url, get('/half'), { timeout: 50 }), { name: 'TimeoutError' });
  const gaveUp = new AbortController();
  const asked = call(url, get('/silent'), { signal: gaveUp.signal });
  gaveUp.abort();
  await t.throwsAsync(asked, { name: 'AbortError' });
  await t.throwsAsync(call(url, get('/silent'), { signal: AbortSignal.abort(new Error('mine')) }), { message: 'mine' });
});

/** A server that fails so often before it answers. */
function failing(failures: number, fail: (request: IncomingMessage) => { status: number; after?: string } | undefined) {
  const tries: number[] = [];
  const listener: RequestListener = (request, response) => {
    tries.push(performance.now());
    const failed = tries.length > failures ? { status: 200 } : fail(request);
    if (failed === undefined) request.socket.destroy();
    else
      response
        .writeHead(failed.status, failed.after === undefined ? {} : { 'retry-after': failed.after })
        .end(JSON.stringify({ ...away, status: failed.status }));
  };
  return { tries, listener };
}

test('Caller: what passes is tried again where a repetition does no harm, and nowhere else', async (t) => {
  for (const status of [429, 502, 503, 504, undefined]) {
    const { tries, listener } = failing(2, () => (status === undefined ? undefined : { status }));
    const url = await serve(t, listener);
    await call(url, get('/', { isRepeatable: true }));
    t.is(tries.length, 3, String(status));
    tries.length = 0;
    await t.throwsAsync(call(url, post('/')));
    t.is(tries.length, 1, String(status));
  }
  for (const status of [400, 401, 404, 409, 500]) {
    const { tries, listener } = failing(1, () => ({ status }));
    await t.throwsAsync(call(await serve(t, listener), get('/', { isRepeatable: true })), { instanceOf: RefusedError });
    t.is(tries.length, 1);
  }
});

test('Caller: waits as long as Retry-After says, unless that is longer than the call may take', async (t) => {
  const { tries, listener } = failing(1, () => ({ status: 503, after: '1' }));
  const url = await serve(t, listener);
  await call(url, get('/', { isRepeatable: true }));
  t.true(tries[1]! - tries[0]! >= 1_000, String(tries));
  tries.length = 0;
  const impatient = call(url, get('/', { isRepeatable: true }), { timeout: 900 });
  t.like(await t.throwsAsync(impatient, { instanceOf: RefusedError }), { code: 'AWAY', retryAfter: 1 });
  t.is(tries.length, 1);
  tries.length = 0;
  const gaveUp = new AbortController();
  const asked = call(url, get('/', { isRepeatable: true }), { signal: gaveUp.signal });
  setTimeout(() => gaveUp.abort(), 100);
  await t.throwsAsync(asked, { name: 'AbortError' });
  t.is(tries.length, 1);
});

test('Caller: a hub that is down gets few more calls than it is called', async (t) => {
  const { tries, listener } = failing(Number.MAX_SAFE_INTEGER, () => ({ status: 503 }));
  const caller = new Caller({ baseUrl: await serve(t, listener) });
  const ask = () => caller.reply(get('/', { isRepeatable: true }), {});
  await Promise.all(Array.from({ length: 20 }, () => t.throwsAsync(ask(), { instanceOf: RefusedError })));
  t.true(tries.length > 20 && tries.length <= 25, String(tries.length));
  tries.length = 0;
  await t.throwsAsync(ask());
  t.is(tries.length, 1);
  // And none where it is told so.
  const fresh = new Caller({ baseUrl: await serve(t, listener), retries: 0 });
  tries.length = 0;
  await t.throwsAsync(fresh.reply(get('/', { isRepeatable: true }), {}));
  t.is(tries.length, 1);
});

test('lines: every message comes, one at a time, also the last without a newline', async (t) => {
  const text = `${JSON.stringify({ result: { n: 'ä' } })}\n\n${JSON.stringify({ result: { n: '2' } })}\n{"result":{"n":"3"}}`;
  const url = await serve(t, (_request, response) => {
    // In pieces that end within a character.
    for (const byte of Buffer.from(text)) response.write(Buffer.from([byte]));
    response.end();
  });
  const seen = await Readable.from(new Caller({ baseUrl: url }).lines(get('/'), {})).toArray();
  t.deepEqual(seen, [{ n: 'ä' }, { n: '2' }, { n: '3' }]);
});

test('lines: an error in the midst of a stream is thrown, after what came before, and silence ends it', async (t) => {
  const url = await serve(t, (request, response) => {
    response.write('{"result":1}\n');
    if (request.url === '/error') response.end(JSON.stringify({ error: away }));
    if (request.url === '/cut') setTimeout(() => request.socket.destroy(), 50);
  });
  for (const [path, thrown] of [
    ['/error', { instanceOf: RefusedError, message: 'Away (503 AWAY)' }],
    ['/cut', { instanceOf: ConnectionError }],
    ['/silent', { name: 'TimeoutError' }],
  ] as [string, ThrowsExpectation<Error>][]) {
    const lines = new Caller({ baseUrl: url }).lines(get(path), {}, { timeout: 1_000 });
    t.is((await lines.next()).value, 1);
    await t.throwsAsync(lines.next(), thrown);
  }
});

interface Said {
  type: string;
  id: number;
  data: unknown;
}

const eventsOf = (baseUrl: string, rpc: Rpc, options?: CallOptions) =>
  new Caller({ baseUrl }).events<Said>({ ...rpc, hasNumericIds: true }, {}, options);

const streamOf = (text: string): RequestListener => {
  return (_request, response) => void response.writeHead(200, { 'content-type': 'text/event-stream' }).end(text);
};

test('events: every event comes with its type, its id and its data, whatever its pieces are', async (t) => {
  const text = [
    ': \n\n',
    'retry: 1500\n\n',
    `event: text\nid: 1\ndata: ${JSON.stringify({ delta: 'ä\u2028: \n' })}\n\n`,
    ': \n\n',
    'data:[1,\r\ndata: 2]\r\nid:2\r\nevent:list\r\nunknown\r\n\r\n',
    'event: nothing\n\n',
    'event: unfinished\nid: 3\ndata: 1\n',
  ].join('');
  const seen: IncomingMessage[] = [];
  const url = await serve(t, (request, response) => {
    seen.push(request);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    // In pieces that end within a character.
    for (const byte of Buffer.from(text)) response.write(Buffer.from([byte]));
    response.end();
  });
  t.deepEqual(await Readable.from(eventsOf(url, post('/'), { headers: { 'x-own': '1' } })).toArray(), [
    { type: 'text', id: 1, data: { delta: 'ä\u2028: \n' } },
    { type: 'list', id: 2, data: [1, 2] },
  ]);
  const { headers } = seen[0]!;
  t.like(headers, { accept: 'text/event-stream', 'content-type': 'application/json', 'x-own': '1' });
});

test('events: a refusal and the event error are thrown, and nothing (204) is no event', async (t) => {
  const error = { status: 502, detail: 'Away', error_code: 'AWAY' };
  const url = await serve(t, (request, response) => {
    if (request.url === '/nothing') response.writeHead(204).end();
    else if (request.url === '/refused') response.writeHead(409).end(JSON.stringify({ ...error, status: 409 }));
    else
      streamOf(`event: a\nid: 1\ndata: 7\n\nevent: error\nid: 2\ndata: ${JSON.stringify(error)}\n\n`)(
        request,
        response,
      );
  });
  const seen: unknown[] = [];
  const read = async (path: string) => {
    for await (const { data } of eventsOf(url, get(path))) seen.push(data);
  };
  await read('/nothing');
  t.like(await t.throwsAsync(read('/refused'), { instanceOf: RefusedError }), { status: 409, code: 'AWAY' });
  t.deepEqual(seen, []);
  t.like(await t.throwsAsync(read('/'), { instanceOf: RefusedError }), { status: 502, code: 'AWAY' });
  t.deepEqual(seen, [7]);
});

test('events: comments break the silence, a reader takes its time, and who stops closes the connection', async (t) => {
  const left: unknown[] = [];
  const url = await serve(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('id: 1\ndata: 1\n\n');
    response.once('close', () => left.push(request.url));
    if (request.url !== '/alive') return;
    const beat = setInterval(() => response.write(': \n\n'), 100);
    const later = [2, 3].map((id) => setTimeout(() => response.write(`id: ${id}\ndata: 2\n\n`), (id - 1) * 1_500));
    response.once('close', () => [beat, ...later].forEach(clearTimeout));
  });
  const ask = (path: string) => eventsOf(url, get(path), { timeout: 1_000 });
  const alive = ask('/alive');
  t.is((await alive.next()).value?.id, 1);
  t.is((await alive.next()).value?.id, 2);
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  t.is((await alive.next()).value?.id, 3);
  await alive.return();
  const silent = ask('/silent');
  await silent.next();
  await t.throwsAsync(silent.next(), { name: 'TimeoutError' });
  const ended = await eventually(
    'the end of both',
    () => left,
    ({ length }) => length === 2,
  );
  t.deepEqual(ended, ['/alive', '/silent']);
});

test('downloadFile: silence breaks it off, a reader that takes its time does not', async (t) => {
  const url = await serve(t, (request, response) => {
    response.write('first');
    if (request.url?.includes('whole')) response.end('second');
  });
  const download = (file_id: string) => downloadFile(new Caller({ baseUrl: url }), { file_id }, { timeout: 1_000 });
  const broken = await download('half');
  await t.throwsAsync(broken.text(), { name: 'TimeoutError' });
  const slow = await download('whole');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  t.is(await slow.text(), 'firstsecond');
});
