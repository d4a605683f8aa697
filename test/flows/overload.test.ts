import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { openRest, type Problem, type Token } from '../rest.ts';
import { ended, messageOf, openConversation, openedMeshes, send, type FlowMesh, type Person } from './meshes.ts';

const [mesh] = openedMeshes(['embedded'], {
  env: { ADMIN_USERS: 'user5', DELIVERY_DEADLINE: '20s', RATE_LIMIT: '0' },
}) as [FlowMesh];

/** Deliveries that the network takes in a second, and messages that are sent in one. */
const [taken, offered] = [5, 15];

test('what a slow network can’t deliver in time is refused, with Retry-After; what is accepted is delivered; other channels go on', async (t) => {
  t.timeout(180_000);
  const credentials = { username: 'user5', password: 'password123' };
  const admin = openRest(mesh.url, (await mesh.anonymous.post<Token>('/auth/token', credentials)).token);
  const path = '/v1/admin/channels/whatsapp/profile';
  t.is((await admin.call('PUT', path, { json: { rate_limit: taken } })).status, 200);
  t.teardown(() => admin.call('DELETE', path));

  const [user1, user2] = mesh.people as [Person, Person];
  // So many that hardly any message comes behind one that waits: those say nothing of the network.
  const ids = await Promise.all(Array.from({ length: 200 }, () => openConversation([user1, user2])));
  const accepted: string[] = [];
  const refused: { problem: Problem; retryAfter: string | null }[] = [];
  const calls: Promise<void>[] = [];
  async function offer(number: number): Promise<void> {
    const json = messageOf(user1, ids[number % ids.length]!);
    const { status, body, headers } = await user1.rest.call('POST', '/v1/messages', { json });
    if (status === 200) accepted.push(json.message_id);
    else refused.push({ problem: body as Problem, retryAfter: headers.get('retry-after') });
  }
  const giveUp = Date.now() + 60_000;
  for (let number = 0; refused.length < 20 && Date.now() < giveUp; number += 1) {
    calls.push(offer(number));
    await sleep(1_000 / offered);
  }
  await Promise.all(calls);
  t.true(refused.length >= 20);
  for (const { problem, retryAfter } of refused) {
    t.like(problem, { status: 503, error_code: 'CHANNEL_OVERLOADED' });
    t.true(Number(retryAfter) >= 1);
  }

  const elsewhere = await send(user1, ids[0]!, { channels: ['instagram'] });
  t.is((await ended(user1, elsewhere)).status, 'delivered');
  t.true(accepted.length > taken);
  for (const id of accepted) {
    const seen = await ended(user1, id, 60_000);
    t.is(seen.status, 'delivered', seen.deliveries[0]!.error);
  }
  const audit = await admin.get<{ balanced: boolean; messages: { accepted: number; failed: number } }>(
    '/v1/admin/audit',
  );
  t.like(audit, { balanced: true, messages: { accepted: accepted.length + 1, failed: 0 } });
});
