import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { calculateJwkThumbprint, decodeProtectedHeader, importJWK, SignJWT, type JWK } from 'jose';
import { eventually } from '../test/eventually.ts';
import { loadConfig } from './config.ts';
import { HubError } from './errors.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from './identity.ts';
import { openLog } from './log.ts';

const names = ['auth', 'message', 'router'];
const { privateKeys, trusted } = await generateKeys(names);
const open = (name: string, key = privateKeys[name], keys = trusted) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: key, TRUSTED_KEYS: keys }));
const [auth, message, router] = names.map((name) => open(name)) as [Identities, Identities, Identities];

const claims = { userId: 'u1', numId: 7n, username: 'ana', admin: false, sessionId: 's1' };
const inAnHour = () => new Date(Date.now() + 3_600_000);

async function reasonOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return error instanceof HubError ? `${error.kind} ${error.reason}` : String(error);
  }
}
const invalid = 'UNAUTHENTICATED TOKEN_INVALID';

test('userToken: every service believes what auth signed', async (t) => {
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  const expected = {
    kind: 'user',
    userId: 'u1',
    numId: 7n,
    username: 'ana',
    admin: false,
    credential: 'token',
  } as const;
  t.deepEqual(await message.verify(token), expected);
  t.deepEqual(await message.verify(token), expected, 'and again, from memory');
  const admin = await auth.userToken({ ...claims, admin: true, expiresAt: inAnHour() });
  t.like(await router.verify(admin), { admin: true });
});

test('userToken: of another service than auth it is worth nothing', async (t) => {
  const token = await router.userToken({ ...claims, expiresAt: inAnHour() });
  t.is(await reasonOf(message.verify(token)), invalid);
});

test('verify: a token ends exactly at its time, also when it is remembered', async (t) => {
  const expiresAt = new Date(Math.ceil(Date.now() / 1000) * 1000 + 1_000);
  const token = await auth.userToken({ ...claims, expiresAt });
  t.like(await message.verify(token), { userId: 'u1' });
  await new Promise((resolve) => setTimeout(resolve, expiresAt.getTime() - Date.now() + 5));
  t.is(await reasonOf(message.verify(token)), 'UNAUTHENTICATED TOKEN_EXPIRED');
});

test('serviceToken: only the service that it is made out to believes it', async (t) => {
  const token = await router.serviceToken('message');
  t.deepEqual(await message.verify(token), { kind: 'service', name: 'router' });
  t.is(await reasonOf(auth.verify(token)), invalid);
  t.is(await router.serviceToken('message'), token, 'it is used again while it is valid');
});

test('verify: a token has one spelling', async (t) => {
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  const [header, payload, signature] = token.split('.') as [string, string, string];
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  // 64 bytes are 86 characters, of which the last one has 4 bits to spare.
  const last = letters.indexOf(signature.at(-1) as string);
  const same = letters.split('').filter((letter, at) => at >> 4 === last >> 4 && letter !== signature.at(-1));
  t.is(same.length, 15);
  const others = same.map((letter) => `${header}.${payload}.${signature.slice(0, -1)}${letter}`);
  others.push(`${token}=`, `${token}==`, `${header}=.${payload}.${signature}`, `${token} `, `${token}\n`, `${token}.`);
  if (/[-_]/.test(token)) others.push(token.replaceAll('-', '+').replaceAll('_', '/'));
  for (const other of others) t.is(await reasonOf(message.verify(other)), invalid, other.slice(-8));
  t.like(await message.verify(token), { userId: 'u1' });
});

test('verify: what is changed, unsigned, or signed with a key of one’s own is refused', async (t) => {
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  const [header, payload, signature] = token.split('.') as [string, string, string];
  const other = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(payload, 'base64url').toString()), sub: 'u2' }));
  t.is(await reasonOf(message.verify(`${header}.${other.toString('base64url')}.${signature}`)), invalid);
  const none = Buffer.from(JSON.stringify({ alg: 'none', typ: 'user+jwt', kid: 'auth' })).toString('base64url');
  t.is(await reasonOf(message.verify(`${none}.${payload}.`)), invalid);
  t.is(await reasonOf(message.verify('no token at all')), invalid);

  const own = await generateKeys(['auth']);
  const forger = open('auth', own.privateKeys.auth, own.trusted);
  t.is(await reasonOf(message.verify(await forger.userToken({ ...claims, expiresAt: inAnHour() }))), invalid);
});

test('verify: a service can not speak in the name of another', async (t) => {
  const { kid } = JSON.parse(privateKeys.auth!) as JWK;
  const key = JSON.stringify({ ...JSON.parse(privateKeys.router as string), kid, service: 'auth' });
  const impostor = open('auth', key);
  t.is(await reasonOf(message.verify(await impostor.userToken({ ...claims, expiresAt: inAnHour() }))), invalid);
  t.is(await reasonOf(message.verify(await impostor.serviceToken('message'))), invalid);
});

/** A token for the message service that `signer` signed with its own key, whatever it says. */
async function signedBy(signer: string, typ: string, claims: Record<string, unknown>): Promise<string> {
  const jwk = JSON.parse(privateKeys[signer]!) as JWK & { kid: string };
  const key = await importJWK(jwk, 'EdDSA');
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'EdDSA', kid: jwk.kid, typ })
    .setAudience('message')
    .setExpirationTime('1h')
    .sign(key);
}

test('verify: whose key it is signed with is who it has to be from', async (t) => {
  const user = { sub: 'u1', username: 'ana', admin: true };
  t.like(await message.verify(await signedBy('auth', 'user+jwt', { ...user, iss: 'auth' })), { userId: 'u1' });
  t.is(await reasonOf(message.verify(await signedBy('router', 'user+jwt', { ...user, iss: 'auth' }))), invalid);
  t.like(await message.verify(await signedBy('router', 'service+jwt', { iss: 'router' })), { name: 'router' });
  t.is(await reasonOf(message.verify(await signedBy('router', 'service+jwt', { iss: 'auth' }))), invalid);
});

test('verify: a token that is meant for something else is none of a user or a service', async (t) => {
  const user = { sub: 'u1', username: 'ana', iss: 'auth' };
  for (const typ of ['JWT', 'at+jwt', 'user', 'service+jwt2']) {
    t.is(await reasonOf(message.verify(await signedBy('auth', typ, user))), invalid, typ);
  }
  t.is(await reasonOf(message.verify(await signedBy('auth', 'user+jwt', { iss: 'auth', username: 'ana' }))), invalid);
  t.is(await reasonOf(message.verify(await signedBy('auth', 'user+jwt', { iss: 'auth', sub: 'u1' }))), invalid);
});

test('settings: a key that is none is named without being shown', (t) => {
  const error = t.throws(() => loadConfig(identitySettings, { IDENTITY_KEY: 'geheim', TRUSTED_KEYS: '{"keys":[]}' }));
  t.regex(error.message, /IDENTITY_KEY must be/);
  t.regex(error.message, /TRUSTED_KEYS must be/);
  t.notRegex(error.message, /geheim/);
});

/** A folder with files of keys, which are gone after the test, and a service that reads them. */
async function withFiles(t: ExecutionContext) {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-keys-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const lines: string[] = [];
  const log = openLog({
    name: 't',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(line) },
  });
  const write = async (file: string, text: string) => {
    await writeFile(path.join(folder, `${file}.new`), text);
    await rename(path.join(folder, `${file}.new`), path.join(folder, file));
  };
  const own = await generateKeys(['auth', 'message']);
  await write('auth', own.privateKeys.auth!);
  await write('message', own.privateKeys.message!);
  await write('trusted', own.trusted);
  const openOne = (name: string) =>
    openIdentities(
      loadConfig(identitySettings, {
        IDENTITY_KEY: path.join(folder, name),
        TRUSTED_KEYS: path.join(folder, 'trusted'),
      }),
      { log },
    );
  return { ...own, write, openOne, lines };
}

const publicKeysIn = (trusted: string) => (JSON.parse(trusted) as { keys: JWK[] }).keys;
const kidOf = (token: string) => decodeProtectedHeader(token).kid;

test('keys: a key is called by its thumbprint, and says whose it is', async (t) => {
  const [key] = publicKeysIn(trusted);
  t.like(key, { service: 'auth', kid: await calculateJwkThumbprint(key!) });
  t.is(auth.name, 'auth');
  t.is(kidOf(await auth.userToken({ ...claims, expiresAt: inAnHour() })), key!.kid);
});

test('keys: one without a service belongs to the one that it is called after', async (t) => {
  const { privateKeys, trusted } = await generateKeys(['auth', 'message']);
  const old = (jwk: JWK & { service?: string }) => {
    const { service, ...rest } = jwk;
    return { ...rest, kid: service };
  };
  const keys = JSON.stringify({ keys: publicKeysIn(trusted).map(old) });
  const auth = open('auth', JSON.stringify(old(JSON.parse(privateKeys.auth!) as JWK)), keys);
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  t.is(kidOf(token), 'auth');
  t.like(await open('message', privateKeys.message, keys).verify(token), { userId: 'u1' });
});

test('keys: of two of one service both are believed, and of two with one name none', async (t) => {
  const more = await generateKeys(['auth']);
  const both = { keys: [...publicKeysIn(trusted), ...publicKeysIn(more.trusted)] };
  const verifier = open('message', privateKeys.message, JSON.stringify(both));
  const newer = open('auth', more.privateKeys.auth, JSON.stringify(both));
  for (const signer of [auth, newer]) {
    t.like(await verifier.verify(await signer.userToken({ ...claims, expiresAt: inAnHour() })), { userId: 'u1' });
  }
  const twice = { keys: both.keys.map((key) => ({ ...key, kid: 'same' })) };
  const error = t.throws(() => open('message', privateKeys.message, JSON.stringify(twice)));
  t.regex(error.message, /TRUSTED_KEYS must be/);
});

test('keys: one that has run out is believed no more, though its token was remembered', async (t) => {
  const exp = Math.ceil(Date.now() / 1_000) + 1;
  const keys = JSON.stringify({ keys: publicKeysIn(trusted).map((key) => ({ ...key, exp })) });
  const verifier = open('message', privateKeys.message, keys);
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  t.like(await verifier.verify(token), { userId: 'u1' });
  await new Promise((resolve) => setTimeout(resolve, exp * 1_000 - Date.now() + 5));
  t.is(await reasonOf(verifier.verify(token)), invalid);
});

test('keys: those in files are replaced without a restart, each signature being believed', async (t) => {
  const { write, openOne, trusted } = await withFiles(t);
  const [auth, message] = [openOne('auth'), openOne('message')];
  const old = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  t.like(await message.verify(old), { userId: 'u1' });

  const next = await generateKeys(['auth']);
  const kid = publicKeysIn(next.trusted)[0]!.kid;
  // The key comes before others know it: the old one signs on until they do.
  await write('auth', next.privateKeys.auth!);
  await sleep(2_050);
  t.is(kidOf(await auth.userToken({ ...claims, expiresAt: inAnHour() })), kidOf(old));
  await write('trusted', JSON.stringify({ keys: [...publicKeysIn(trusted), ...publicKeysIn(next.trusted)] }));
  const token = await eventually(
    'a token that is signed with the new key',
    () => auth.userToken({ ...claims, expiresAt: inAnHour() }),
    (token) => kidOf(token) === kid,
  );
  t.like(await message.verify(token), { userId: 'u1' }, 'at once, however lately the file was looked at');
  t.like(await message.verify(old), { userId: 'u1' });

  // Without the old key, what it signed is void: what was remembered, too.
  await write('trusted', JSON.stringify({ keys: [...publicKeysIn(trusted).slice(1), ...publicKeysIn(next.trusted)] }));
  await sleep(2_050);
  t.is(await reasonOf(message.verify(old)), invalid);
  t.like(await message.verify(token), { userId: 'u1' });
});

test('keys: a file that can not be used is told of once, and the old keys stay', async (t) => {
  const { write, openOne, trusted, privateKeys, lines } = await withFiles(t);
  const auth = openOne('auth');
  const token = await auth.userToken({ ...claims, expiresAt: inAnHour() });
  await write('trusted', trusted.slice(0, -20));
  await write('auth', privateKeys.message!);
  for (let times = 0; times < 3; times += 1) {
    await sleep(2_050);
    t.like(await auth.verify(token), { userId: 'u1' });
  }
  t.false(
    lines.some((line) => line.includes('signs with')),
    'that the files were looked at again is no news',
  );
  const errors = lines.filter((line) => line.includes("can't be used"));
  t.deepEqual(
    errors.map((line) => /file of (\w+)/.exec(line)?.[1] ?? '').toSorted((a, b) => a.localeCompare(b)),
    ['IDENTITY_KEY', 'TRUSTED_KEYS'],
  );
  t.notRegex(lines.join('\n'), /"d\\*"/);
  t.is(kidOf(await auth.userToken({ ...claims, expiresAt: inAnHour() })), kidOf(token));
  await write('trusted', trusted);
  await sleep(2_050);
  await auth.verify(token);
  t.true(lines.some((line) => line.includes('can be used again')));
});
