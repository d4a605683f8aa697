import { setTimeout as wait } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { kafkaIsThere, startMesh, type Mesh } from './harness.ts';

const embedded = await startMesh({ bus: 'embedded' });
const kafka = kafkaIsThere ? await startMesh({ bus: 'kafka' }) : undefined;
test.after.always(async () => {
  await embedded.stop();
  await kafka?.stop();
});

async function sendsAMessage(t: ExecutionContext, { url }: Mesh): Promise<void> {
  const call = async (method: string, path: string, token?: string, body?: object) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        'content-type': 'application/json',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
    const answer = (await response.json()) as Record<string, string>;
    t.true(response.ok, `${method} ${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  };
  const { token, user_id } = await call('POST', '/auth/token', undefined, {
    username: 'user1',
    password: 'password123',
  });
  const { conversation_id } = await call('POST', '/v1/conversations', token, {
    type: 'private',
    members: ['user1', 'user2'],
  });
  const message_id = uuid();
  await call('POST', '/v1/messages', token, {
    message_id,
    conversation_id,
    from: user_id,
    channels: ['all'],
    payload: { type: 'text', text: 'hello' },
  });
  let status: string | undefined;
  for (const limit = Date.now() + 20_000; status !== 'delivered' && Date.now() < limit; await wait(50)) {
    status = (await call('GET', `/v1/messages/${message_id}`, token)).status;
  }
  t.is(status, 'delivered');
}

test('startMesh: a message is delivered over the embedded bus', (t) => sendsAMessage(t, embedded));

const withKafka = kafka === undefined ? test.skip : test;
withKafka('startMesh: a message is delivered over Kafka', (t) => sendsAMessage(t, kafka!));
