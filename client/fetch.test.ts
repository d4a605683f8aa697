import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import {
  b64Decode,
  b64Encode,
  fetchData,
  fetchEvents,
  fetchReq,
  fetchStreamingRequest,
  pathValue,
  query,
  RefusedError,
  type Page,
  replacer,
} from './fetch.ts';
import { eventually } from '../test/eventually.ts';
import { downloadFile } from './files.ts';

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

test('fetchReq: says that it sends JSON, and takes no body for an empty answer', async (t) => {
  const seen: IncomingMessage[] = [];
  const pathPrefix = await serve(t, (request, response) => {
    seen.push(request);
    response.writeHead(204).end();
  });
  t.deepEqual(await fetchReq('/x', { pathPrefix, method: 'POST', body: '{}', headers: { 'x-own': '1' } }), {});
  t.like(seen[0]?.headers, { 'content-type': 'application/json', 'x-own': '1' });
  await fetchReq('/x', { pathPrefix, method: 'GET' });
  t.is(seen[1]?.headers['content-type'], undefined);
});

test('fetchReq: a refusal is an Error with what the hub says, also where it was not the hub', async (t) => {
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
  const pathPrefix = await serve(t, (request, response) => {
    if (request.url === '/hub') response.writeHead(409, { 'content-type': 'application/problem+json' });
    else response.writeHead(502);
    response.end(request.url === '/hub' ? JSON.stringify(problem) : '<h1>Bad Gateway</h1>');
  });
  const refused = (path: string) =>
    t.throwsAsync(fetchReq(path, { pathPrefix, method: 'GET' }), { instanceOf: RefusedError });
  const byHub = await refused('/hub');
  t.deepEqual([byHub?.status, byHub?.problem, byHub?.message], [409, problem, 'No (409 NO)']);
  t.like(byHub, { code: 'NO', requestId: '1', retryAfter: 3 });
  t.deepEqual(byHub?.details, [
    { field: 'a', message: 'is silly' },
    { field: 'a', message: 'is long' },
  ]);
  const byProxy = await refused('/proxy');
  t.deepEqual([byProxy?.status, byProxy?.problem, byProxy?.message], [502, undefined, 'HTTP 502']);
  t.like(byProxy, { code: undefined, details: [], requestId: undefined });
});

test('fetchData: takes what is in an envelope out of it, with its page beside it', async (t) => {
  const meta = { request_id: '1', pagination: { offset: 0, limit: 2, total: 7 } };
  const answers: Record<string, string> = {
    '/one': JSON.stringify({ data: { a: 1 }, error: null, meta: { request_id: '1' } }),
    '/list': JSON.stringify({ data: [1, 2], error: null, meta }),
    '/none': '',
  };
  const pathPrefix = await serve(t, (request, response) => void response.end(answers[request.url!]));
  const init = { pathPrefix, method: 'GET' };
  t.deepEqual(await fetchData('/one', init), { a: 1 });
  t.deepEqual(await fetchData('/none', init), {});
  const list = await fetchData<Page<number[], { total: number }>>('/list', init);
  t.deepEqual([...list], [1, 2]);
  t.is(list.pagination.total, 7);
  t.is(JSON.stringify(list), '[1,2]');
});

test('fetchData: a refusal is an Error with its code, its details and the id of the request', async (t) => {
  const details = [{ field: 'name', message: 'is required', rule: 'required' }];
  const error = { code: 'VALIDATION_ERROR', message: 'Some fields are not valid: name', details };
  const pathPrefix = await serve(t, (request, response) => {
    const isBusy = request.url === '/busy';
    response.writeHead(isBusy ? 503 : 400, isBusy ? { 'retry-after': '7' } : {});
    const refused = isBusy ? { ...error, code: 'UNAVAILABLE', details: [] } : error;
    response.end(JSON.stringify({ data: null, error: refused, meta: { request_id: 'r1' } }));
  });
  const refused = (path: string) =>
    t.throwsAsync(fetchData(path, { pathPrefix, method: 'GET' }), { instanceOf: RefusedError });
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

test('send: an API key goes where the hub looks for it', async (t) => {
  const seen: IncomingMessage[] = [];
  const pathPrefix = await serve(t, (request, response) => {
    seen.push(request);
    response.end('{}');
  });
  await fetchReq('/', { pathPrefix, method: 'GET', apiKey: 'c4a_k', headers: { 'x-own': '1' } });
  t.like(seen[0]!.headers, { 'x-api-key': 'c4a_k', 'x-own': '1' });
  await fetchReq('/', { pathPrefix, method: 'GET' });
  t.is(seen[1]!.headers['x-api-key'], undefined);
});

test('fetchReq: gives up after the timeout, in the midst of an answer too, and when the caller does', async (t) => {
  const pathPrefix = await serve(t, (request, response) => {
    if (request.url === '/half') response.write('{"a":');
  });
  const ask = (path: string, init: object) => fetchReq(path, { pathPrefix, method: 'GET', ...init });
  await t.throwsAsync(ask('/silent', { timeout: 50 }), { name: 'TimeoutError' });
  await t.throwsAsync(ask('/half', { timeout: 50 }), { name: 'TimeoutError' });
  const gaveUp = new AbortController();
  const asked = ask('/silent', { signal: gaveUp.signal });
  gaveUp.abort();
  await t.throwsAsync(asked, { name: 'AbortError' });
});

test('fetchStreamingRequest: every message comes, one at a time, also the last without a newline', async (t) => {
  const text = `${JSON.stringify({ result: { n: 'ä' } })}\n\n${JSON.stringify({ result: { n: '2' } })}\n{"result":{"n":"3"}}`;
  const pathPrefix = await serve(t, (_request, response) => {
    // In pieces that end within a character.
    for (const byte of Buffer.from(text)) response.write(Buffer.from([byte]));
    response.end();
  });
  const seen: string[] = [];
  let atOnce = 0;
  await fetchStreamingRequest<{ n: string }>(
    '/stream',
    async ({ n }) => {
      t.is((atOnce += 1), 1);
      await new Promise(setImmediate);
      seen.push(n);
      atOnce -= 1;
    },
    { pathPrefix, method: 'GET' },
  );
  t.deepEqual(seen, ['ä', '2', '3']);
});

test('fetchStreamingRequest: an error in the midst of a stream is thrown, after what came before', async (t) => {
  const error = { status: 503, detail: 'Away', error_code: 'AWAY' };
  const pathPrefix = await serve(t, (_request, response) => {
    response.end(`{"result":1}\n${JSON.stringify({ error })}`);
  });
  const seen: number[] = [];
  const stream = fetchStreamingRequest<number>('/', (n) => void seen.push(n), { pathPrefix, method: 'GET' });
  const thrown = await t.throwsAsync(stream, { instanceOf: RefusedError });
  t.deepEqual([thrown?.status, thrown?.problem?.error_code, seen], [503, 'AWAY', [1]]);
});

test('fetchStreamingRequest: silence ends it, and so does a listener that throws', async (t) => {
  const left: unknown[] = [];
  const pathPrefix = await serve(t, (request, response) => {
    response.write('{"result":1}\n');
    response.once('close', () => left.push(request.url));
  });
  const init = { pathPrefix, method: 'GET' };
  await t.throwsAsync(fetchStreamingRequest('/silent', undefined, { ...init, timeout: 1_000 }), {
    name: 'TimeoutError',
  });
  const fail = () => {
    throw new Error('not that');
  };
  await t.throwsAsync(fetchStreamingRequest('/', fail, init), { message: 'not that' });
  // Neither is left open.
  const ended = await eventually(
    'the end of both',
    () => left,
    ({ length }) => length === 2,
  );
  t.deepEqual(ended, ['/silent', '/']);
});

interface Said {
  type: string;
  id: number;
  data: unknown;
}

const streamOf = (text: string): RequestListener => {
  return (_request, response) => void response.writeHead(200, { 'content-type': 'text/event-stream' }).end(text);
};

test('fetchEvents: every event comes with its type, its id and its data, whatever its pieces are', async (t) => {
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
  const pathPrefix = await serve(t, (request, response) => {
    seen.push(request);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    // In pieces that end within a character.
    for (const byte of Buffer.from(text)) response.write(Buffer.from([byte]));
    response.end();
  });
  const init = { pathPrefix, method: 'POST', body: '{}', headers: { 'x-own': '1' } };
  t.deepEqual(await Readable.from(fetchEvents<Said>('/', Number, init)).toArray(), [
    { type: 'text', id: 1, data: { delta: 'ä\u2028: \n' } },
    { type: 'list', id: 2, data: [1, 2] },
  ]);
  const { headers } = seen[0]!;
  t.like(headers, { accept: 'text/event-stream', 'content-type': 'application/json', 'x-own': '1' });
});

test('fetchEvents: a refusal and the event error are thrown, and nothing (204) is no event', async (t) => {
  const error = { status: 502, detail: 'Away', error_code: 'AWAY' };
  const pathPrefix = await serve(t, (request, response) => {
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
    for await (const { data } of fetchEvents<Said>(path, Number, { pathPrefix, method: 'GET' })) seen.push(data);
  };
  await read('/nothing');
  t.like(await t.throwsAsync(read('/refused'), { instanceOf: RefusedError }), { status: 409, code: 'AWAY' });
  t.deepEqual(seen, []);
  t.like(await t.throwsAsync(read('/'), { instanceOf: RefusedError }), { status: 502, code: 'AWAY' });
  t.deepEqual(seen, [7]);
});

test('fetchEvents: comments break the silence, a reader takes its time, and who stops closes the connection', async (t) => {
  const left: unknown[] = [];
  const pathPrefix = await serve(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('id: 1\ndata: 1\n\n');
    response.once('close', () => left.push(request.url));
    if (request.url !== '/alive') return;
    const beat = setInterval(() => response.write(': \n\n'), 100);
    const later = [2, 3].map((id) => setTimeout(() => response.write(`id: ${id}\ndata: 2\n\n`), (id - 1) * 1_500));
    response.once('close', () => [beat, ...later].forEach(clearTimeout));
  });
  const ask = (path: string) => fetchEvents<Said>(path, Number, { pathPrefix, method: 'GET', timeout: 1_000 });
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
  const pathPrefix = await serve(t, (request, response) => {
    response.write('first');
    if (request.url?.includes('whole')) response.end('second');
  });
  const broken = await downloadFile({ file_id: 'half' }, { pathPrefix, timeout: 1_000 });
  await t.throwsAsync(broken.text(), { name: 'TimeoutError' });
  const slow = await downloadFile({ file_id: 'whole' }, { pathPrefix, timeout: 1_000 });
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  t.is(await slow.text(), 'firstsecond');
});

test('base64: what is encoded can be decoded, of any length', (t) => {
  for (const length of [0, 1, 2, 3, 8_191, 8_192, 100_000]) {
    const bytes = Uint8Array.from({ length }, (_, index) => index % 251);
    t.is(b64Encode(bytes), Buffer.from(bytes).toString('base64'));
    t.deepEqual(b64Decode(b64Encode(bytes)), bytes);
  }
  t.is(JSON.stringify({ a: new Uint8Array([255]) }, replacer), '{"a":"/w=="}');
});

test('pathValue: encodes a value, keeps the slashes of a pattern, and refuses what is another path', (t) => {
  t.is(pathValue({ a: 'x/ä?' }, 'a'), 'x%2F%C3%A4%3F');
  t.is(pathValue({ a: { b: 7 } }, 'a.b'), '7');
  t.is(pathValue({ a: 'shelves/1 2' }, 'a', 'shelves/*'), 'shelves/1%202');
  for (const a of [undefined, null, '', '.', '..']) t.throws(() => pathValue({ a }, 'a'), { instanceOf: TypeError });
  t.throws(() => pathValue({ a: 'x/../y' }, 'a', '**'), { instanceOf: TypeError });
});

test('query: holds every value that is said, zeros too, and nothing that is elsewhere', (t) => {
  const request = {
    a: 0,
    b: '',
    c: false,
    d: null,
    e: undefined,
    f: [1, 2],
    g: { h: 'ä&', i: { j: [] } },
    k: 'path',
    m: { x: 1 },
  };
  t.is(query(request, ['k'], ['m']), '?a=0&b=&c=false&f=1&f=2&g.h=%C3%A4%26&m%5Bx%5D=1');
  t.is(query({ k: 1 }, ['k']), '');
  t.throws(() => query({ a: [{}] }, []), { instanceOf: TypeError, message: /a has no place/ });
});
