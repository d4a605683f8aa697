import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Client,
  credentials,
  Metadata,
  type ClientWritableStream,
  type ServiceError,
  type StatusObject,
} from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import {
  DownloadFileResponse,
  FileServiceService,
  UploadChunkRequest,
  type UploadChunkResponse,
} from '#gen/chat4all/file/v1/file.ts';
import { eventually } from '../../test/eventually.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { loadConfig } from '../config.ts';
import { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities } from '../identity.ts';
import { openLog } from '../log.ts';
import type { RateFloorOptions } from '../rate-floor.ts';
import type { Bytes } from './methods.ts';
import { bytesIn, bytesMessage } from './raw-body.ts';
import { rawBodyOf, method } from './schema.ts';
import { serve, serverSettings, service, type Handlers } from './server.ts';
import { fromServiceError } from './status.ts';

const { privateKeys, trusted } = await generateKeys(['auth', 'file']);
const identitiesOf = (name: string) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));
const fileId = 'abcdef00-0000-4000-8000-000000000000';
const token = await identitiesOf('auth').userToken({
  userId: fileId,
  numId: 7n,
  username: 'somebody',
  admin: false,
  sessionId: fileId,
  expiresAt: new Date(Date.now() + 600_000),
});

const first = UploadChunkRequest.encode({
  fileId: fileId.toUpperCase(),
  chunkId: 0,
  contentDigest: '',
  contentLength: undefined,
  data: Buffer.alloc(0),
}).finish();
const data = rawBodyOf(method(FileServiceService.uploadChunk.path));
const answer: UploadChunkResponse = { fileId, chunkId: 0, status: 2, receivedBytes: 0n, nextUploadUrl: undefined };

type Given = Partial<Handlers<typeof FileServiceService>>;

async function open(t: ExecutionContext, given: Given, taken?: RateFloorOptions) {
  const unused = async (): Promise<never> => {
    throw new Error('nobody asks for this');
  };
  const handlers = Object.fromEntries(Object.keys(FileServiceService).map((key) => [key, unused]));
  const lines: Record<string, unknown>[] = [];
  const server = await serve({
    authority: noAuthority,
    config: loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '1s' }),
    identities: identitiesOf('file'),
    log: openLog({
      name: 'file',
      format: 'json',
      level: 'info',
      destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
    }),
    services: [service(FileServiceService, { ...handlers, ...given } as Handlers<typeof FileServiceService>)],
    dependencies: {},
    clientLimits: taken === undefined ? {} : { reading: taken },
  });
  const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure());
  t.teardown(async () => {
    client.close();
    await server.stop();
  });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return { client, metadata, lines, port: server.port };
}

const asIs = (bytes: Buffer) => bytes;

/** Begins an upload. */
function upload({ client, metadata }: { client: Client; metadata: Metadata }) {
  const ended = Promise.withResolvers<Buffer>();
  ended.promise.catch(() => {});
  const call: ClientWritableStream<Buffer> = client.makeClientStreamRequest(
    FileServiceService.uploadChunk.path,
    asIs,
    asIs,
    metadata,
    { deadline: Date.now() + 20_000 },
    (error: ServiceError | null, bytes?: Buffer) => {
      if (error === null) ended.resolve(bytes as Buffer);
      else ended.reject(fromServiceError(error));
    },
  );
  return { call, ended: ended.promise };
}

const piece = (text: string) => bytesMessage(data, Buffer.from(text));

async function textOf(bytes: Bytes): Promise<string> {
  let text = '';
  for await (const some of bytes) text += Buffer.from(some).toString();
  return text;
}

test('a bytes field is found in any message and written as one, whatever its length', (t) => {
  for (const length of [0, 1, 127, 128, 16_384, 300_000]) {
    const bytes = Buffer.alloc(length, 7);
    const message = UploadChunkRequest.decode(bytesMessage(data, bytes));
    t.deepEqual(message.data, bytes);
    t.is(message.fileId, '');
    const whole = UploadChunkRequest.encode({ ...message, fileId, chunkId: 9 }).finish();
    t.deepEqual(Buffer.from(bytesIn(data, whole) ?? []), bytes);
  }
});

test('an upload arrives as a request and the bytes behind it, those of the first message included', async (t) => {
  const seen: string[] = [];
  const fixture = await open(t, {
    async uploadChunk(request, call, body) {
      seen.push(request.fileId, call.caller.username, await textOf(body));
      return answer;
    },
  });
  const { call, ended } = upload(fixture);
  call.write(Buffer.concat([first, piece('one ')]));
  call.write(piece('two '));
  call.write(piece(''));
  call.write(piece('three'));
  call.end();
  await ended;
  t.deepEqual(seen, [fileId, 'somebody', 'one two three']);
});

test('a piece of more than 1 MiB, and a message of more than 4 MiB, are refused with the reason', async (t) => {
  const fixture = await open(t, {
    async uploadChunk(_request, _call, body) {
      await textOf(body);
      return answer;
    },
  });
  const MiB = 1024 * 1024;
  const send = async (...pieces: Buffer[]) => {
    const { call, ended } = upload(fixture);
    call.on('error', () => {});
    for (const each of pieces) call.write(each);
    call.end();
    return ended;
  };
  const largest = bytesMessage(data, Buffer.alloc(MiB));
  await send(Buffer.from(first), largest);
  const larger = bytesMessage(data, Buffer.alloc(MiB + 1));
  for (const pieces of [[Buffer.from(first), larger], [Buffer.concat([first, larger])]]) {
    const refused = await t.throwsAsync(send(...pieces));
    t.like(refused, { kind: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
    t.regex(refused.message, /^A piece has 1048577 bytes: send at most 1048576/);
  }
  const huge = await t.throwsAsync(send(Buffer.from(first), bytesMessage(data, Buffer.alloc(4 * MiB))));
  t.like(huge, { kind: 'RESOURCE_EXHAUSTED' });
  t.regex(huge.message, /larger than max \(\d+ vs\.? 4194304\)/);
});

test('an upload is refused before its bytes are asked for: without a token, with a wrong request, with none', async (t) => {
  const fixture = await open(t, {
    async uploadChunk() {
      t.fail('it got through');
      return answer;
    },
  });
  const refusals = async (metadata: Metadata, message?: Buffer | Uint8Array) => {
    const { call, ended } = upload({ client: fixture.client, metadata });
    if (message !== undefined) call.write(Buffer.from(message));
    else call.end();
    return (await t.throwsAsync(ended)) as HubError;
  };
  t.like(await refusals(new Metadata(), first), { kind: 'UNAUTHENTICATED', reason: 'TOKEN_MISSING' });
  const wrong = await refusals(fixture.metadata, piece('no request'));
  t.deepEqual(
    wrong.fields.map(({ field }) => field),
    ['file_id', 'chunk_id'],
  );
  t.like(await refusals(fixture.metadata), { kind: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
});

test('the initial metadata says that the bytes are wanted, and comes only then', async (t) => {
  const mayGoOn = Promise.withResolvers<void>();
  const fixture = await open(t, {
    async uploadChunk(_request, _call, body) {
      await mayGoOn.promise;
      await textOf(body);
      return answer;
    },
  });
  const { call, ended } = upload(fixture);
  let told = false;
  call.on('metadata', () => (told = true));
  call.write(Buffer.from(first));
  await sleep(100);
  t.false(told);
  mayGoOn.resolve();
  await once(call, 'metadata');
  call.end();
  await ended;
});

for (const [what, sent, outcome] of [
  ['was put there', [], 'put '],
  ['comes after all', ['some ', 'bytes'], 'sent some bytes'],
  ['is lost', [''], 'failed '],
] as const) {
  test(`a gateway that offers it is told where to put the bytes, and the handler that it ${what}`, async (t) => {
    const seen: string[] = [];
    const fixture = await open(t, {
      async uploadChunk(_request, _call, body) {
        seen.push(`${await body.handOver!('http://place/')} ${await textOf(body)}`);
        return answer;
      },
    });
    fixture.metadata.set('x-body-hand-over', 'put');
    fixture.metadata.set('x-forwarded-host', 'hub.example');
    const { call, ended } = upload(fixture);
    call.write(Buffer.from(first));
    const [told] = (await once(call, 'metadata')) as [Metadata];
    t.deepEqual(told.get('x-body-location'), ['http://place/']);
    for (const text of sent) call.write(piece(text));
    call.end();
    await ended;
    t.deepEqual(seen, [outcome]);
  });
}

test('nobody but a gateway is told of places to put bytes to', async (t) => {
  const seen: boolean[] = [];
  const fixture = await open(t, {
    async uploadChunk(_request, _call, body) {
      seen.push(body.handOver !== undefined);
      return answer;
    },
  });
  for (const [key, value] of [
    ['x-body-hand-over', 'put'],
    ['x-forwarded-host', 'hub.example'],
  ] as const) {
    const metadata = fixture.metadata.clone();
    metadata.set(key, value);
    const { call, ended } = upload({ client: fixture.client, metadata });
    call.write(Buffer.from(first));
    call.end();
    await ended;
  }
  t.deepEqual(seen, [false, false]);
});

test('a client that goes in the middle aborts the signal, and its call is no bug', async (t) => {
  const aborted = Promise.withResolvers<string>();
  const fixture = await open(t, {
    async uploadChunk(_request, call, body) {
      call.signal.addEventListener('abort', () => aborted.resolve((call.signal.reason as HubError).kind));
      // Read to an end that is none, or thrown out of: either may be.
      await textOf(body);
      await aborted.promise;
      throw new Error('what a stream that is cut off throws');
    },
  });
  const { call } = upload(fixture);
  call.write(Buffer.from(first));
  call.write(piece('half of it'));
  await once(call, 'metadata');
  call.cancel();
  t.is(await aborted.promise, 'CANCELLED');
  const logged = await eventually(
    'its log line',
    () => fixture.lines.find((line) => line.code !== undefined || line.level === 50),
    (line) => line !== undefined,
  );
  t.like(logged, { code: 'CANCELLED', level: 30 });
});

test('a piece that can not be read is the fault of the client', async (t) => {
  const fixture = await open(t, {
    async uploadChunk(_request, _call, body) {
      await textOf(body);
      return answer;
    },
  });
  const { call, ended } = upload(fixture);
  call.write(Buffer.from(first));
  call.write(Buffer.from([0x2a, 0xff]));
  call.end();
  t.like(await t.throwsAsync(ended), { kind: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
});

test('a refusal in the middle of an upload reaches the client while it still sends', async (t) => {
  const fixture = await open(t, {
    async uploadChunk(_request, _call, body) {
      for await (const some of body) if (some.length > 0) break;
      throw new HubError('INVALID_ARGUMENT', 'CHUNK_SIZE_MISMATCH', 'too much');
    },
  });
  const { call, ended } = upload(fixture);
  call.on('error', () => {});
  call.write(Buffer.from(first));
  const sending = setInterval(() => call.write(piece('more')), 5);
  t.like(await t.throwsAsync(ended), { reason: 'CHUNK_SIZE_MISMATCH' });
  clearInterval(sending);
});

function download({ client, metadata }: { client: Client; metadata: Metadata }, limit = 20_000) {
  const request = FileServiceService.downloadFile.requestSerialize({ fileId, range: '', ifRange: '' });
  return client.makeServerStreamRequest(FileServiceService.downloadFile.path, asIs, asIs, request, metadata, {
    deadline: Date.now() + limit,
  });
}

const head: DownloadFileResponse = {
  data: Buffer.alloc(0),
  filename: 'a file',
  contentType: 'text/plain',
  checksum: '',
  contentLength: 6n,
  contentRange: '',
  acceptRanges: 'bytes',
};

test('a download of which only the head is wanted reads nothing, and every answer says who called', async (t) => {
  let read = 0;
  let refuses = false;
  const fixture = await open(t, {
    async downloadFile() {
      if (refuses) throw new HubError('NOT_FOUND', 'FILE_NOT_FOUND', 'No such file');
      return {
        head,
        body: (async function* () {
          read += 1;
          yield Buffer.from('abcdef');
        })(),
      };
    },
  });
  fixture.metadata.set('x-head-only', '1');
  for (const expected of [1, 0]) {
    const call = download(fixture);
    const messages: Buffer[] = [];
    call.on('data', (message: Buffer) => messages.push(message));
    call.on('error', () => {});
    const { metadata } = await new Promise<{ metadata: Metadata }>((resolve) => call.on('status', resolve));
    t.is(messages.length, expected);
    t.deepEqual(metadata.get('x-caller-id'), [fileId]);
    refuses = true;
  }
  t.is(read, 0);
});

test('a download is its first message and then the bytes, also where the pieces are made in one buffer', async (t) => {
  const fixture = await open(t, {
    async downloadFile() {
      return {
        head,
        body: (async function* () {
          const reused = Buffer.alloc(3);
          for (const text of ['abc', 'def']) {
            reused.write(text);
            yield reused;
          }
        })(),
      };
    },
  });
  const messages: DownloadFileResponse[] = [];
  for await (const message of download(fixture)) messages.push(DownloadFileResponse.decode(message as Buffer));
  t.deepEqual(messages[0], head);
  t.is(messages.map((message) => String(message.data)).join('|'), '|abc|def');
});

test('a download that can not begin is an error without a first message, one that breaks off ends with an error', async (t) => {
  let good = 0;
  const fixture = await open(t, {
    async downloadFile() {
      return {
        head,
        body: (async function* () {
          for (; good > 0; good--) yield Buffer.from('abc');
          throw new HubError('UNAVAILABLE', 'STORE_UNAVAILABLE', 'away', { retryAfter: 1 });
        })(),
      };
    },
  });
  const outcome = async () => {
    const call = download(fixture);
    let messages = 0;
    call.on('data', () => messages++);
    const [error] = (await once(call, 'error').catch((caught: unknown) => [caught])) as [ServiceError];
    return [messages, fromServiceError(error).reason];
  };
  t.deepEqual(await outcome(), [0, 'STORE_UNAVAILABLE']);
  good = 2;
  t.deepEqual(await outcome(), [3, 'STORE_UNAVAILABLE']);
});

test('a download is read no faster than its client reads, and no more once the client has gone', async (t) => {
  let made = 0;
  let left = false;
  const fixture = await open(t, {
    async downloadFile() {
      return {
        head,
        body: (async function* () {
          try {
            for (; made < 10_000; made++) yield Buffer.alloc(64 * 1024);
          } finally {
            left = true;
          }
        })(),
      };
    },
  });
  const call = download(fixture);
  call.on('error', () => {});
  await once(call, 'readable');
  let before = -1;
  await eventually(
    'nothing more is made',
    async () => {
      before = made;
      await sleep(200);
      return made === before;
    },
    (stands) => stands,
  );
  t.true(made < 200, `${made} pieces were made for nobody`);
  t.false(left);
  call.cancel();
  await eventually(
    'the body is left',
    () => left,
    (isLeft) => isLeft,
  );
});

test('a gateway that can is told where to get a download, and nothing is read; others get the bytes', async (t) => {
  let read = 0;
  const fixture = await open(t, {
    async downloadFile() {
      return {
        head,
        body: (async function* () {
          read += 1;
          yield Buffer.from('abcdef');
        })(),
        place: async () => 'http://place/',
      };
    },
  });
  const outcome = async (keys: Record<string, string>) => {
    const metadata = fixture.metadata.clone();
    for (const [key, value] of Object.entries(keys)) metadata.set(key, value);
    const call = download({ ...fixture, metadata });
    const told = once(call, 'metadata') as Promise<[Metadata]>;
    const pieces: string[] = [];
    for await (const message of call) pieces.push(String(DownloadFileResponse.decode(message as Buffer).data));
    return [(await told)[0].get('x-body-location'), pieces];
  };
  const [offer, host] = [{ 'x-body-hand-over': 'get' }, { 'x-forwarded-host': 'hub.example' }];
  t.deepEqual(await outcome({ ...offer, ...host }), [['http://place/'], ['']]);
  t.is(read, 0);
  for (const keys of [offer, host, { 'x-body-hand-over': 'put', ...host }]) {
    t.deepEqual(await outcome(keys), [[], ['', 'abcdef']], JSON.stringify(keys));
  }
});

const mebibyte = 1024 * 1024;

for (const [what, windowSize] of [
  ['', 65_535],
  [' with wide windows', 64 * mebibyte],
] as const) {
  test.serial(
    `a hundred readers${what} who take nothing hold little each and are cut off, one who reads is not`,
    async (t) => {
      const made: number[] = [];
      const fixture = await open(
        t,
        {
          async downloadFile() {
            const index = made.push(0) - 1;
            return {
              head,
              body: (async function* () {
                const piece = Buffer.alloc(128 * 1024);
                for (; made[index]! < 32 * mebibyte; made[index]! += piece.length) yield piece;
              })(),
            };
          },
        },
        { window: 3_000, rate: 1_024 },
      );
      // Takes what it is sent up to a point, and nothing from then on: the windows are one thing, the connection another.
      const proxy = await startProxy(t, fixture.port);
      const client = new Client(`127.0.0.1:${proxy.port}`, credentials.createInsecure(), {
        'grpc-node.flow_control_window': windowSize,
      });
      t.teardown(() => client.close());
      const stalled = Array.from({ length: 100 }, () => download({ client, metadata: fixture.metadata }, 120_000));
      const ended = stalled.map((call) => new Promise<StatusObject>((resolve) => call.once('status', resolve)));
      for (const call of stalled) call.on('error', () => {});
      await eventually(
        'all of them are there',
        () => made.length,
        (count) => count === 100,
      );
      proxy.stall();
      let before = -1;
      const total = () => made.reduce((sum, bytes) => sum + bytes, 0);
      await eventually(
        'nothing more is made',
        async () => {
          await sleep(200);
          const isSteady = total() === before;
          before = total();
          return isSteady;
        },
        Boolean,
      );
      // What went through the proxy, and what systems hold for the two connections, is not ours any more.
      const ours = total() - proxy.passed();
      t.true(ours < 100 * mebibyte + 24 * mebibyte, `${ours / mebibyte} MiB`);

      let received = 0;
      for await (const message of download(fixture, 120_000)) received += (message as Buffer).length;
      t.true(received > 32 * mebibyte);
      await eventually(
        'they are cut off',
        () => fixture.lines.filter(({ reason }) => reason === 'READER_TOO_SLOW').length,
        (count) => count === 100,
      );
      proxy.goOn();
      for (const { code } of await Promise.all(ended)) t.not(code, 0);
    },
  );
}

/** A way to a port, on which nothing more is taken from it once it is to stall. */
async function startProxy(t: ExecutionContext, port: number) {
  let passed = 0;
  let isStalled = false;
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const upstream = connect(port, '127.0.0.1');
    socket.pipe(upstream);
    upstream.on('data', (bytes: Buffer) => {
      passed += bytes.length;
      socket.write(bytes);
    });
    if (isStalled) upstream.pause();
    for (const each of [socket, upstream])
      each.on('error', () => {}).on('close', () => (socket.destroy(), upstream.destroy()));
    sockets.push(upstream, socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const each of sockets) each.destroy();
    server.close();
  });
  const change = (how: 'pause' | 'resume') => {
    isStalled = how === 'pause';
    for (let at = 0; at < sockets.length; at += 2) sockets[at]![how]();
  };
  return {
    port: (server.address() as AddressInfo).port,
    passed: () => passed,
    stall: () => change('pause'),
    goOn: () => change('resume'),
  };
}
