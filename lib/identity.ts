import { createPrivateKey, createPublicKey } from 'node:crypto';
import {
  calculateJwkThumbprint,
  decodeJwt,
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  jwtVerify,
  SignJWT,
  type JWTHeaderParameters,
} from 'jose';
import { BoundedMap } from './bounded-map.ts';
import { hubDate, hubTime } from './clock.ts';
import { ConfigError } from './config.ts';
import { HubError } from './errors.ts';
import { openKeyRing, privateKey, publicKeys, type KeySource, type PrivateKey, type PublicKey } from './keys.ts';
import type { Logger } from './log.ts';

/** Settings of every process that has a service identity or verifies callers. */
export const identitySettings = {
  IDENTITY_KEY: privateKey().describe(
    "this service's own private key (Ed25519), as a JWK with `service` = the service's name, or the path of a file with it, which is read again when it changes. Secret",
  ),
  TRUSTED_KEYS: publicKeys().describe(
    'the public keys of all services, as a JWK set (RFC 7517), or the path of a file with it, which is read again when it changes',
  ),
};

/** A user, as identified by a token or an API key. */
export interface UserIdentity {
  kind: 'user';
  userId: string;
  /** `num_id` of chat4all.auth.v1.User; 0 for tokens from before it existed. */
  numId: bigint;
  username: string;
  /** Whether the caller has an administrator's rights; never with an API key. */
  admin: boolean;
  credential: 'token' | 'api key';
}

/** Another service of the mesh. */
export interface ServiceIdentity {
  kind: 'service';
  name: string;
}

export type Identity = UserIdentity | ServiceIdentity;

export interface UserClaims {
  userId: string;
  /** Sent as the claim `num`. */
  numId: bigint;
  username: string;
  admin: boolean;
  /** UUID of the session that the token belongs to. */
  sessionId: string;
  /** In whole seconds. */
  expiresAt: Date;
}

/** Signs tokens for one service, and verifies those of others. */
export interface Identities {
  /** The name of this service. */
  readonly name: string;
  /** A token of this service for calls to the service `audience`. */
  serviceToken(audience: string): Promise<string>;
  /** A token for a user. Only those of the auth service are accepted. */
  userToken(claims: UserClaims): Promise<string>;
  /** @throws HubError UNAUTHENTICATED `TOKEN_INVALID` or `TOKEN_EXPIRED` */
  verify(token: string): Promise<Identity>;
}

/**
 * When the token in an `authorization` header expires, in milliseconds since the epoch; undefined if there is none. The token must have been
 * verified.
 */
export function tokenExpiry(authorization: string | undefined): number | undefined {
  const token = authorization?.split(' ')[1];
  if (token === undefined) return undefined;
  const { exp } = decodeJwt(token);
  return exp === undefined ? undefined : exp * 1_000;
}

/** The only service whose tokens for users are accepted. */
const userTokenIssuer = 'auth';
const userTokenType = 'user+jwt';
const serviceTokenType = 'service+jwt';
const serviceTokenSeconds = 300;
const unknownKeyWarningEveryMs = 60_000;
/** To verify a signature costs about 0.1 ms, so this many verified tokens are cached. */
const maxCachedTokens = 10_000;

interface TrustedKey {
  service: string;
  key: ReturnType<typeof importJWK>;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

/**
 * @param service the service that the keys must belong to
 * @param log is told when keys change or can't be used, and of calls by services that use another key set
 * @throws ConfigError if the private key is another service's, or the other services would not accept its signatures
 */
export function openIdentities(
  config: { IDENTITY_KEY: KeySource<PrivateKey>; TRUSTED_KEYS: KeySource<PublicKey[]> },
  { service, log }: { service?: string; log?: Logger } = {},
): Identities {
  if (service !== undefined) checkKeys(service, config.IDENTITY_KEY.value, config.TRUSTED_KEYS.value);
  const ring = openKeyRing({ signing: config.IDENTITY_KEY, trusted: config.TRUSTED_KEYS }, { log, onChange: load });
  const name = ring.signing.service;
  let signing!: { kid: string; key: ReturnType<typeof importJWK> };
  /** By key id. */
  let trusted!: Map<string, TrustedKey>;
  const known = new BoundedMap<string, { identity: Identity; expiresAt: number }>(maxCachedTokens);
  const issued = new Map<string, { token: string; renewAt: number }>();
  let warnAgainAt = 0;
  load();

  function load(): void {
    const { kty, crv, x, d, kid } = ring.signing;
    signing = { kid, key: importJWK({ kty, crv, x, d }, 'EdDSA') };
    trusted = new Map(
      ring.trusted.map(({ kty, crv, x, kid, service, exp = Infinity }) => [
        kid,
        { service, key: importJWK({ kty, crv, x }, 'EdDSA'), expiresAt: exp * 1_000 },
      ]),
    );
    // An invalid key fails when it is used.
    for (const { key } of [signing, ...trusted.values()]) Promise.resolve(key).catch(() => {});
    known.clear();
    issued.clear();
  }

  return {
    name,

    async serviceToken(audience) {
      await ring.freshen();
      const last = issued.get(audience);
      if (last !== undefined && hubTime() < last.renewAt) return last.token;
      const now = hubTime();
      const { kid, key } = signing;
      const token = await new SignJWT({})
        .setProtectedHeader({ alg: 'EdDSA', kid, typ: serviceTokenType })
        .setIssuer(name)
        .setAudience(audience)
        .setExpirationTime(Math.floor(now / 1000) + serviceTokenSeconds)
        .sign(await key);
      // The key may have been replaced meanwhile.
      if (kid === signing.kid) issued.set(audience, { token, renewAt: now + (serviceTokenSeconds * 1000) / 2 });
      return token;
    },

    async userToken({ userId, numId, username, admin, sessionId, expiresAt }) {
      await ring.freshen();
      const { kid, key } = signing;
      return new SignJWT({ username, num: Number(numId), ...(admin ? { admin } : {}) })
        .setProtectedHeader({ alg: 'EdDSA', kid, typ: userTokenType })
        .setIssuer(name)
        .setSubject(userId)
        .setJti(sessionId)
        .setExpirationTime(Math.floor(expiresAt.getTime() / 1000))
        .sign(await key);
    },

    async verify(token) {
      const freshening = ring.freshen();
      if (freshening !== undefined) await freshening;
      const found = known.get(token);
      if (found !== undefined) {
        if (hubTime() < found.expiresAt) return found.identity;
        known.delete(token);
      }
      if (!isCanonical(token)) throw invalidToken();
      const believed = trusted;
      const checked = await check(token);
      if (believed === trusted) known.set(token, checked);
      return checked.identity;
    },
  };

  /** @throws JWKSNoMatchingKey if no key with that id is trusted */
  async function trustedKey({ kid = '' }: JWTHeaderParameters): Promise<TrustedKey> {
    // The key may be newer than our last look at the file.
    if (!trusted.has(kid)) await ring.freshen('now');
    const found = trusted.get(kid);
    if (found === undefined || hubTime() >= found.expiresAt) {
      warnOfUnknownKey(kid);
      throw new errors.JWKSNoMatchingKey();
    }
    return found;
  }

  /**
   * Logs an unknown key id, at most once a minute: either an attack, or our own services have different key sets, and then every call
   * fails.
   */
  function warnOfUnknownKey(kid: string): void {
    if (performance.now() < warnAgainAt) return;
    warnAgainAt = performance.now() + unknownKeyWarningEveryMs;
    log?.warn({ kid: kid.slice(0, 100) }, 'A token was refused: TRUSTED_KEYS has no such key, or not any more');
  }

  async function check(token: string): Promise<{ identity: Identity; expiresAt: number }> {
    try {
      let signer!: TrustedKey;
      const { payload, protectedHeader } = await jwtVerify(
        token,
        async (header) => (signer = await trustedKey(header)).key,
        { algorithms: ['EdDSA'], requiredClaims: ['exp', 'iss'], currentDate: hubDate() },
      );
      const expiresAt = Math.min((payload.exp as number) * 1000, signer.expiresAt);
      // The signature only proves which service signed, so the issuer that the token names is compared as well.
      if (payload.iss !== signer.service) throw invalidToken();
      if (protectedHeader.typ === serviceTokenType && payload.aud === name) {
        return { identity: { kind: 'service', name: signer.service }, expiresAt };
      }
      if (protectedHeader.typ === userTokenType && signer.service === userTokenIssuer) {
        const { sub: userId, num = 0, username, admin } = payload;
        if (typeof userId !== 'string' || typeof username !== 'string') throw invalidToken();
        if (!Number.isSafeInteger(num)) throw invalidToken();
        const identity: UserIdentity = {
          kind: 'user',
          userId,
          numId: BigInt(num as number),
          username,
          admin: admin === true,
          credential: 'token',
        };
        return { identity, expiresAt };
      }
      throw invalidToken();
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        throw new HubError('UNAUTHENTICATED', 'TOKEN_EXPIRED', 'The token has expired: log in again');
      }
      if (error instanceof errors.JOSEError) throw invalidToken(error);
      throw error;
    }
  }
}

/** @throws ConfigError if a service can't start with these keys; it says why */
function checkKeys(service: string, own: PrivateKey, trusted: readonly PublicKey[]): void {
  const problems: string[] = [];
  const { kid, x } = own;
  if (own.service !== service) problems.push(`IDENTITY_KEY is the key of ${own.service}, and not of ${service}`);
  else if (!isPair(own)) problems.push('IDENTITY_KEY has a public part (x) that is not of its private one (d)');
  else {
    const found = trusted.find((key) => key.kid === kid);
    const about = `the public key of IDENTITY_KEY (kid ${kid})`;
    if (found === undefined) problems.push(`TRUSTED_KEYS does not have ${about}: the two are of different sets`);
    else if (found.x !== x) problems.push(`TRUSTED_KEYS has another key under the name of ${about}`);
    else if (found.service !== service) {
      problems.push(`TRUSTED_KEYS has ${about} as that of ${found.service}, and not of ${service}`);
    } else if ((found.exp ?? Infinity) * 1_000 <= hubTime()) {
      problems.push(`TRUSTED_KEYS has ${about} as one that is over: the key was replaced`);
    }
  }
  if (!trusted.some((key) => key.service === userTokenIssuer)) {
    problems.push(`TRUSTED_KEYS has no key of ${userTokenIssuer}: nobody's token would be believed`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
}

/** Whether the public part of a key belongs to its private part. */
function isPair({ kty, crv, x, d }: PrivateKey): boolean {
  try {
    const key = createPrivateKey({ key: { kty, crv, x, d }, format: 'jwk' });
    return createPublicKey(key).export({ format: 'jwk' }).x === x;
  } catch {
    return false;
  }
}

/**
 * Whether each part of a token is canonical base64url (RFC 7515, 2): without padding and without stray trailing bits. Decoders ignore
 * those, so one token could be written in many ways, and caches or deny lists of tokens would miss some.
 */
function isCanonical(token: string): boolean {
  const parts = token.split('.');
  return parts.length === 3 && parts.every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);
}

export function invalidToken(cause?: unknown): HubError {
  return new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The token is not valid', { cause });
}

/** Generates a key pair for each name. @returns the private JWKs by name, and the JWK set of the public ones, as JSON text */
export async function generateKeys(
  names: readonly string[],
): Promise<{ privateKeys: Record<string, string>; trusted: string }> {
  const pairs = await Promise.all(
    names.map(async (service) => {
      const { privateKey, publicKey } = await generateKeyPair('EdDSA', { extractable: true });
      const publicJwk = await exportJWK(publicKey);
      const about = { kid: await calculateJwkThumbprint(publicJwk), service, alg: 'EdDSA' };
      return {
        service,
        privateJwk: { ...(await exportJWK(privateKey)), ...about },
        publicJwk: { ...publicJwk, ...about, use: 'sig' },
      };
    }),
  );
  return {
    privateKeys: Object.fromEntries(pairs.map(({ service, privateJwk }) => [service, JSON.stringify(privateJwk)])),
    trusted: JSON.stringify({ keys: pairs.map(({ publicJwk }) => publicJwk) }),
  };
}
