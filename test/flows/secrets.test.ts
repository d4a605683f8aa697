import test from 'ava';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';
import { openRest, type Token } from '../rest.ts';
import { contentOf, download, everyChunk, initiate, complete, put, sendChunk, chunkOf } from './files.ts';
import { ended, openConversation, send, type Person } from './meshes.ts';

/** What the processes write at LOG_LEVEL=trace while people log in, write, send files and get things wrong. */

const mesh = opened(
  () => startMesh({ bus: 'embedded', env: { LOG_LEVEL: 'trace' } }),
  (mesh) => mesh.stop(),
);

test('no log line shows a password, a token, a key, a signature or what people write', async (t) => {
  const anonymous = openRest(mesh.url);
  const password = 'password123';
  const wrong = 'a-wrong-password-of-user1';
  const people: Person[] = [];
  const secrets = [password, wrong];
  for (const username of ['user1', 'user2', 'user3']) {
    const { token, user_id: userId } = await anonymous.post<Token>('/auth/token', { username, password });
    people.push({ userId, username, rest: openRest(mesh.url, token) });
    secrets.push(token);
  }
  const [user1, user2] = people as [Person, Person];
  t.is((await anonymous.call('POST', '/auth/token', { json: { username: 'user1', password: wrong } })).status, 401);
  const forged = `${secrets.at(-1)!.slice(0, -8)}AAAAAAAA`;
  t.is((await openRest(mesh.url, forged).call('GET', '/v1/users/me')).status, 401);
  t.is((await anonymous.call('GET', `/v1/users/me?access_token=${secrets.at(-1)}`)).status, 401);
  secrets.push(forged);

  const text = 'what user1 whispers to user2';
  const conversation = await openConversation(people);
  const sent = await send(user1, conversation, { channels: ['all'], payload: { type: 'text', text } });
  t.is((await ended(user2, sent)).status, 'delivered');
  secrets.push(text);

  const upload = await initiate(user1, contentOf('secrets', 6 * 1024 ** 2), { chunkSize: 5 * 1024 ** 2 });
  const { next_upload_url: url } = await sendChunk(upload, 0);
  t.is(everyChunk(upload).length, 2);
  const signature = new URL(url!).searchParams.get('signature')!;
  secrets.push(signature);
  t.is((await put(url!.replace(signature, `${signature.slice(0, -4)}AAAA`), chunkOf(upload, 1))).status, 403);
  t.is((await put(url!, chunkOf(upload, 1))).status, 200);
  const { file_id } = await complete(upload);
  t.is((await download(user1, file_id)).status, 200);

  // Failures quote what failed.
  const roleUrl = new URL(mesh.databaseUrl('router'));
  secrets.push(roleUrl.password);
  roleUrl.password = 'Wq8-no-password-of-router';
  const lost = await t.throwsAsync(mesh.startService('router', { DATABASE_URL: roleUrl.href }), {
    message: /DATABASE_URL/,
  });
  secrets.push(roleUrl.password);
  const token = await mesh.serviceToken('message', 'file');
  secrets.push(token);

  const processes = [mesh.gateway, ...Object.values(mesh.services)];
  const lines = [...processes.flatMap((process) => process.lines), lost!.stack!];
  t.true(
    lines.some((line) => line.includes(sent)),
    'the lines are about this',
  );
  for (const secret of secrets) {
    for (const line of lines) if (line.includes(secret)) t.fail(line.replace(secret, '…'));
  }
  for (const shape of [
    /eyJ[\w-]{10}/,
    /\$2b\$/,
    /"d":"/,
    /[?&](signature|X-Amz-Signature)=(?!\[hidden\])/i,
    /bearer (?!\[)/i,
  ]) {
    for (const line of lines) t.notRegex(line, shape);
  }
});
