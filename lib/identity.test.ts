import test from 'ava';
import { importJWK, SignJWT, type JWK } from 'jose';
import { loadConfig } from './config.ts';
import { HubError } from './errors.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from './identity.ts';

const names = ['auth', 'message', 'router'];
const { privateKeys, trusted } = await generateKeys(names);
const open = (name: string, key = privateKeys[name], keys = trusted) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: key, TRUSTED_KEYS: keys }));
const [auth, message, router] = names.map((name) => open(name)) as [Identities, Identities, Identities];

const claims = { userId: 'u1', username: 'ana', admin: false, sessionId: 's1' };
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
  const expected = { kind: 'user', userId: 'u1', username: 'ana', admin: false } as const;
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
  const key = JSON.stringify({ ...JSON.parse(privateKeys.router as string), kid: 'auth' });
  const impostor = open('auth', key);
  t.is(await reasonOf(message.verify(await impostor.userToken({ ...claims, expiresAt: inAnHour() }))), invalid);
  t.is(await reasonOf(message.verify(await impostor.serviceToken('message'))), invalid);
});

/** A token for the message service that `signer` signed with its own key, whatever it says. */
async function signedBy(signer: string, typ: string, claims: Record<string, unknown>): Promise<string> {
  const key = await importJWK(JSON.parse(privateKeys[signer]!) as JWK, 'EdDSA');
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'EdDSA', kid: signer, typ })
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
