import { once } from 'node:events';
import { credentials, Metadata, status, type Client, type ServiceError } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { behindTime } from '../../test/clock.ts';
import { endings, serveRaw, type Ending, type RawServer } from '../../test/raw-http2.ts';
import type { CallError } from './delivery.ts';
import { onceMoreIfRefused, openClient } from './grpc-client.ts';
import { asLost, connectionOptions, Reach } from './reach.ts';

const path = '/a.B/C';
const asIs = (bytes: Buffer) => bytes;

interface Opened {
  client: Client;
  server: RawServer;
}

async function open(t: ExecutionContext, { act }: Pick<Ending, 'act'>): Promise<Opened> {
  const server = await serveRaw(t, act);
  const client = openClient(server.address, credentials.createInsecure(), connectionOptions);
  t.teardown(() => client.close());
  await new Promise((resolve) => client.waitForReady(Infinity, resolve));
  return { client, server };
}

function unary(client: Client, deadline = Infinity): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = Buffer.from('request');
    client.makeUnaryRequest(path, asIs, asIs, request, new Metadata(), { deadline }, (error, answer) => {
      if (error === null) resolve(answer);
      else reject(error);
    });
  });
}

async function streaming(client: Client): Promise<CallError> {
  const call = client.makeBidiStreamRequest(path, asIs, asIs, new Metadata(), {});
  call.on('data', () => {});
  call.write(Buffer.from('request'));
  const [error] = (await once(call, 'error')) as [ServiceError];
  return error;
}

async function failure(work: Promise<unknown>): Promise<CallError> {
  return (await work.then(
    () => undefined,
    (error: unknown) => error,
  )) as CallError;
}

test('delivery: whatever ends a call, the error says how far it came, and a status what the server meant', async (t) => {
  await Promise.all(
    endings.flatMap((ending) => {
      const { what, delivery, code, details } = ending;
      const unaryFails = (client: Client) => failure(unary(client));
      return [unaryFails, streaming].map(async (failed) => {
        const { client } = await open(t, ending);
        const error = await failed(client);
        client.close();
        const title = `${failed.name}: ${what}`;
        t.is(error.delivery, delivery, title);
        t.is(asLost(error).code, code, title);
        if (details !== undefined) t.is(error.details, details, title);
      });
    }),
  );
});

test('delivery: a call that is given up, and one that finds no server, say so', async (t) => {
  const { client, server } = await open(t, { act() {} });
  t.is((await failure(unary(client, Date.now() + 50))).delivery, 'given up');
  const call = client.makeBidiStreamRequest(path, asIs, asIs, new Metadata(), {});
  call.on('data', () => {});
  const failed = once(call, 'error');
  call.cancel();
  t.is(((await failed)[0] as CallError).delivery, 'given up');
  t.is(server.requests >= 1, true);
  const nobody = openClient('127.0.0.1:1', credentials.createInsecure(), connectionOptions);
  t.teardown(() => nobody.close());
  t.is((await failure(unary(nobody))).delivery, 'never sent');
});

test.serial('delivery: a call that is lost once its deadline has passed has exceeded it', async (t) => {
  for (const ending of endings.filter(({ delivery }) => delivery === 'maybe processed')) {
    // oxlint-disable-next-line no-await-in-loop -- the clock is everybody's
    const { client } = await open(t, ending);
    // oxlint-disable-next-line no-await-in-loop
    const error = await behindTime(60_000, () => failure(unary(client, Date.now() + 60_000)));
    t.like(error, { code: status.DEADLINE_EXCEEDED, delivery: 'given up' }, ending.what);
    client.close();
  }
});

test('onceMoreIfRefused: what was refused unprocessed is made once more, and nothing else', async (t) => {
  await Promise.all(
    endings.map(async (ending) => {
      const { server } = await open(t, ending);
      const client = openClient(server.address, credentials.createInsecure(), {
        ...connectionOptions,
        ...onceMoreIfRefused,
      });
      t.teardown(() => client.close());
      await new Promise<void>((resolve) => client.waitForReady(Date.now() + 10_000, () => resolve()));
      await failure(unary(client));
      // Who ends a connection because of an error is not asked again.
      const isRefused = ending.delivery === 'refused unprocessed' && !/^GOAWAY [^0]/.test(ending.what);
      t.is(server.requests, isRefused ? 2 : 1, ending.what);
    }),
  );
});

test('reach: how often a call is made is decided by how far it came, and by nothing that is said', async (t) => {
  const tried = async (ending: Ending, isRepeatable: boolean) => {
    const { client, server } = await open(t, ending);
    const reach = new Reach(client);
    await failure(reach.call(() => unary(client), { isRepeatable, deadline: Date.now() + 60_000 }));
    client.close();
    return server.requests;
  };
  await Promise.all(
    endings.flatMap((ending) =>
      [false, true].map(async (isRepeatable) => {
        const isSafe =
          ending.delivery === 'refused unprocessed' || (ending.delivery === 'maybe processed' && isRepeatable);
        t.is(await tried(ending, isRepeatable), isSafe ? 5 : 1, `${ending.what}, ${isRepeatable}`);
      }),
    ),
  );
});
