import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import v8 from 'node:v8';
import vm from 'node:vm';
import { Metadata, type ServerWritableStream } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { HubError } from '#lib/errors.ts';
import { toStatus } from '#lib/rpc/status.ts';
import { content } from '../../test/echo-backend.ts';
import { dial, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';

/** Downloads whose bytes the gateway gets from where the backend says, as it does from an S3. */

const MiB = 1024 * 1024;
const path = '/v1/raw/a/content';

type Sending = ServerWritableStream<Buffer, Buffer>;

/** A place that bodies are had from. */
interface Place {
  url: string;
  /** The headers of each request. */
  asked: IncomingMessage['headers'][];
  /** Connections that are open for an answer which isn't finished. */
  open: Set<ServerResponse>;
}

/** @param answer answers in place of the body, if it returns true */
async function startPlace(
  t: ExecutionContext,
  body: Buffer,
  answer: (request: IncomingMessage, response: ServerResponse, count: number) => boolean = () => false,
): Promise<Place> {
  const asked: Place['asked'] = [];
  const open: Place['open'] = new Set();
  const server = createServer((request, response) => {
    asked.push(request.headers);
    open.add(response);
    response.on('close', () => open.delete(response));
    response.on('error', () => {});
    if (answer(request, response, asked.length)) return;
    begin(request, response, body);
    response.end(body.subarray(...rangeOf(request)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/place?signature=secret`, asked, open };
}

function rangeOf({ headers }: IncomingMessage): [start: number, end: number] {
  const [, start, last] = /^bytes=(\d+)-(\d+)$/.exec(String(headers.range)) as unknown as [string, string, string];
  return [Number(start), Number(last) + 1];
}

/** Answers with the head of a range. */
function begin(request: IncomingMessage, response: ServerResponse, body: Buffer, more = {}): void {
  const [start, end] = rangeOf(request);
  response.writeHead(206, {
    'content-length': end - start,
    'content-range': `bytes ${start}-${end - 1}/${body.length}`,
    etag: '"tag"',
    ...more,
  });
}

/** Names the place to a gateway that can get bodies from there, and sends the body to others. */
function naming(url: string, body: Buffer, fields = {}, part: [number, number] = [0, body.length]) {
  return (call: Sending) => {
    call.on('error', () => {});
    const head = content({ length: part[1] - part[0], etag: 'abc', ...fields });
    if (call.metadata.get('x-body-hand-over')[0] === 'get') {
      const metadata = new Metadata();
      metadata.set('x-body-location', url);
      call.sendMetadata(metadata);
      call.write(head);
    } else {
      call.write(head);
      call.write(content({}, body.subarray(...part)));
    }
    call.end();
  };
}

test('fetched: the body comes from where the backend says, and the client hears nothing of the place', async (t) => {
  const body = randomBytes(3 * MiB);
  const place = await startPlace(t, body);
  const { backend, send } = await fixture(t);
  backend.sender = naming(place.url, body);
  const answer = await send(`GET ${path}`);
  t.is(answer.status, 200);
  t.true(answer.bytes.equals(body));
  t.like(answer.headers, {
    'content-length': String(body.length),
    etag: '"abc"',
    'cache-control': 'private, no-cache',
  });
  t.false(JSON.stringify(answer.headers).includes('secret'));
  t.is(place.asked[0]?.range, `bytes=0-${body.length - 1}`);
  t.false('authorization' in place.asked[0]!);
});

test('fetched: a range is the range that the backend has made of it', async (t) => {
  const body = randomBytes(MiB);
  const place = await startPlace(t, body);
  const { backend, send } = await fixture(t);
  backend.sender = naming(place.url, body, { range: `bytes 1000-5999/${MiB}` }, [1_000, 6_000]);
  const answer = await send(`GET ${path}`, { headers: { range: 'bytes=1000-5999' } });
  t.is(answer.status, 206);
  t.is(answer.headers['content-range'], `bytes 1000-5999/${MiB}`);
  t.true(answer.bytes.equals(body.subarray(1_000, 6_000)));
  t.is(place.asked[0]?.range, 'bytes=1000-5999');
});

test('fetched: where no body is wanted, none is asked for', async (t) => {
  const body = randomBytes(1_000);
  const place = await startPlace(t, body);
  const { backend, send } = await fixture(t);
  backend.sender = naming(place.url, body);
  t.is((await send(`HEAD ${path}`)).headers['content-length'], '1000');
  t.is((await send(`GET ${path}`, { headers: { 'if-none-match': '"abc"' } })).status, 304);
  backend.sender = (call) => {
    call.on('error', () => {});
    call.emit('error', toStatus(new HubError('OUT_OF_RANGE', 'NO_SUCH_RANGE', 'There is no such range')));
  };
  t.is((await send(`GET ${path}`)).status, 416);
  t.is(place.asked.length, 0);
});

test('fetched: what the place does not have as it should, or where nobody is, comes from the backend', async (t) => {
  const body = randomBytes(100_000);
  let how: (request: IncomingMessage, response: ServerResponse) => void = () => {};
  const place = await startPlace(t, body, (request, response) => {
    how(request, response);
    return true;
  });
  const { backend, send } = await fixture(t);
  const answers: Record<string, typeof how> = {
    'is missing': (_, response) => response.writeHead(404).end('<Code>NoSuchKey</Code>'),
    'is refused': (_, response) => response.writeHead(403).end(),
    'is led elsewhere': (_, response) => response.writeHead(302, { location: place.url }).end(),
    fails: (_, response) => response.writeHead(503).end(),
    'is another range': (request, response) => {
      begin(request, response, body, { 'content-range': `bytes 1-${body.length}/${body.length + 1}` });
      response.end(body);
    },
    'has another length': (request, response) => {
      begin(request, response, body, { 'content-length': 10 });
      response.end(body.subarray(0, 10));
    },
    'is compressed': (request, response) => {
      begin(request, response, body, { 'content-encoding': 'gzip' });
      response.end(body);
    },
    'breaks off before the head': (request) => request.socket.destroy(),
    'never answers': () => {},
  };
  const urls = {
    'is no URL': 'nowhere',
    'has another protocol': 'ftp://127.0.0.1/',
    'is not there': 'http://127.0.0.1:9/',
  };
  for (const what of [...Object.keys(answers), ...Object.keys(urls)]) {
    how = answers[what] ?? how;
    backend.calls.length = 0;
    backend.sender = naming(urls[what as keyof typeof urls] ?? place.url, body);
    const answer = await send(`GET ${path}`);
    t.is(answer.status, 200, what);
    t.true(answer.bytes.equals(body), what);
    t.deepEqual(
      backend.calls.map(({ metadata }) => metadata.get('x-body-hand-over')),
      [['get'], []],
      what,
    );
  }
});

test('fetched: where the place breaks off, it is asked for the rest of the same content', async (t) => {
  const body = randomBytes(2 * MiB);
  const place = await startPlace(t, body, (request, response, count) => {
    if (count === 3) return false;
    begin(request, response, body);
    const [start] = rangeOf(request);
    response.write(body.subarray(start, start + 300_000), () => response.destroy());
    return true;
  });
  const { backend, send } = await fixture(t);
  backend.sender = naming(place.url, body);
  const answer = await send(`GET ${path}`);
  t.true(answer.bytes.equals(body));
  t.deepEqual(
    place.asked.map((headers) => headers['if-match']),
    [undefined, '"tag"', '"tag"'],
  );
  const starts = place.asked.map(({ range }) => Number(/\d+/.exec(String(range))?.[0]));
  t.true(starts[0] === 0 && starts[1]! > 0 && starts[2]! > starts[1]!, starts.join());
});

for (const [what, again] of [
  ['has changed', (response: ServerResponse) => response.writeHead(412).end()],
  ['is gone', (response: ServerResponse) => response.writeHead(404).end()],
  ['can not be had any more', (response: ServerResponse) => response.destroy()],
] as const) {
  test(`fetched: a body that ${what} in the middle never looks whole`, async (t) => {
    const body = randomBytes(MiB);
    const place = await startPlace(t, body, (request, response, count) => {
      if (count > 1) {
        again(response);
        return true;
      }
      begin(request, response, body);
      response.write(body.subarray(0, 200_000), () => response.destroy());
      return true;
    });
    const { backend, gateway } = await fixture(t);
    backend.sender = naming(place.url, body);
    const { socket, until } = await dial(gateway.port);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const answer = await until('end');
    t.regex(answer, /^HTTP\/1\.1 200 /);
    t.true(Buffer.byteLength(answer, 'latin1') < body.length, 'there was an end before the end');
    t.is(backend.calls.length, 1);
  });
}

test('fetched: a client that goes away ends the request to the place', async (t) => {
  const body = Buffer.alloc(64 * MiB);
  const place = await startPlace(t, body);
  const { backend, gateway } = await fixture(t);
  backend.sender = naming(place.url, body);
  const response = await ask(gateway.port);
  response.on('error', () => {});
  t.is(place.open.size, 1);
  response.destroy();
  await eventually(
    'the end',
    () => place.open.size,
    (size) => size === 0,
  );
});

/** Asks for a download and leaves reading it to the test. */
async function ask(port: number): Promise<IncomingMessage> {
  const request = httpRequest({ port, host: '127.0.0.1', path, agent: false });
  request.on('error', () => {});
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

for (const way of ['fetched', 'streamed'] as const) {
  // Alone, since it measures memory.
  test.serial(
    `${way}: a hundred readers who take nothing cost little each and are cut off, one who reads is not`,
    async (t) => {
      const body = Buffer.alloc(64 * MiB);
      const place = await startPlace(t, body);
      const { backend, gateway } = await fixture(t, { HTTP_CONCURRENCY: '500' }, { downloadIdle: 5_000 });
      const piece = content({}, body.subarray(0, 128 * 1024));
      /** Of the calls that stream, in the order in which they came, those that were not cancelled. */
      const streams: { isOpen: boolean }[] = [];
      backend.sender =
        way === 'fetched'
          ? naming(place.url, body)
          : (call) => {
              call.on('error', () => {});
              const stream = { isOpen: true };
              streams.push(stream);
              call.on('cancelled', () => (stream.isOpen = false));
              call.write(content({ length: body.length }));
              let sent = 0;
              const pour = (): void => {
                if (sent === 512) call.end();
                else call.write(piece, () => setImmediate(pour));
                sent += 1;
              };
              pour();
            };
      const held = () => {
        collectGarbage();
        return process.memoryUsage().arrayBuffers;
      };
      const before = held();
      const stalled = await Promise.all(Array.from({ length: 100 }, () => ask(gateway.port)));
      for (const each of stalled) each.on('error', () => {});
      let last = 0;
      const grown = await eventually(
        'what they cost',
        () => {
          const change = held() - last;
          last += change;
          return change < MiB ? last - before : undefined;
        },
        (found) => found !== undefined,
      );
      // Those of the client and of what it is sent by among them: all are in this process.
      t.true(grown! < 100 * MiB, `${Math.round(grown! / MiB)} MiB`);

      let received = 0;
      for await (const bytes of await ask(gateway.port)) received += (bytes as Buffer).length;
      t.is(received, body.length);
      const open = () =>
        way === 'fetched' ? place.open.size : streams.slice(0, stalled.length).filter(({ isOpen }) => isOpen).length;
      await eventually('the end of those who take nothing', open, (count) => count === 0);
      for (const each of stalled) each.destroy();
    },
  );
}
