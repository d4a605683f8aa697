import { hkdfSync } from 'node:crypto';
import {
  createLocalJWKSet,
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  jwtVerify,
  SignJWT,
  type JSONWebKeySet,
  type JWK,
} from 'jose';
import { z } from 'zod';
import { HubError } from './errors.ts';

/** Settings of every process that proves who it is or checks who calls. */
export const identitySettings = {
  IDENTITY_KEY: z
    .string()
    .transform((text, context) => parseKey(text, context))
    .describe("this service's own private key (Ed25519), as a JWK with `kid` = the service's name. Secret"),
  TRUSTED_KEYS: z
    .string()
    .transform((text, context) => parseKeySet(text, context))
    .describe('the public keys of all services, as a JWK set (RFC 7517)'),
};

/** A user, as a token says. */
export interface UserIdentity {
  kind: 'user';
  userId: string;
  username: string;
  admin: boolean;
}

/** Another service of the mesh. */
export interface ServiceIdentity {
  kind: 'service';
  name: string;
}

export type Identity = UserIdentity | ServiceIdentity;

export interface UserClaims {
  userId: string;
  username: string;
  admin: boolean;
  /** UUID of the session that the token belongs to. */
  sessionId: string;
  /** The moment from which the token is refused; whole seconds. */
  expiresAt: Date;
}

/** Signs for one service, and checks what others signed. */
export interface Identities {
  /** The name of this service. */
  readonly name: string;
  /** A token of this service for calls to the service `audience`. */
  serviceToken(audience: string): Promise<string>;
  /** A token for a user. Tokens of other services than auth are refused everywhere. */
  userToken(claims: UserClaims): Promise<string>;
  /** A secret of 32 bytes that only this service can know, one for each purpose: the same in all its processes. */
  deriveKey(purpose: string): Buffer;
  /** @throws HubError UNAUTHENTICATED `TOKEN_INVALID` or `TOKEN_EXPIRED` */
  verify(token: string): Promise<Identity>;
}

/** The only service whose tokens for users are believed. */
const userTokenIssuer = 'auth';
const userTokenType = 'user+jwt';
const serviceTokenType = 'service+jwt';
const serviceTokenSeconds = 300;
/** Checking a signature costs about 0.1 ms, so tokens that were found good are remembered, up to this many. */
const rememberedTokens = 10_000;

export function openIdentities(config: { IDENTITY_KEY: JWK; TRUSTED_KEYS: JSONWebKeySet }): Identities {
  const name = config.IDENTITY_KEY.kid as string;
  const signingKey = importJWK(config.IDENTITY_KEY, 'EdDSA');
  const trustedKeys = createLocalJWKSet(config.TRUSTED_KEYS);
  const known = new Map<string, { identity: Identity; expiresAt: number }>();
  const issued = new Map<string, { token: string; renewAt: number }>();

  return {
    name,

    async serviceToken(audience) {
      const last = issued.get(audience);
      if (last !== undefined && Date.now() < last.renewAt) return last.token;
      const now = Date.now();
      const token = await new SignJWT({})
        .setProtectedHeader({ alg: 'EdDSA', kid: name, typ: serviceTokenType })
        .setIssuer(name)
        .setAudience(audience)
        .setExpirationTime(Math.floor(now / 1000) + serviceTokenSeconds)
        .sign(await signingKey);
      issued.set(audience, { token, renewAt: now + (serviceTokenSeconds * 1000) / 2 });
      return token;
    },

    async userToken({ userId, username, admin, sessionId, expiresAt }) {
      return new SignJWT({ username, ...(admin ? { admin } : {}) })
        .setProtectedHeader({ alg: 'EdDSA', kid: name, typ: userTokenType })
        .setIssuer(name)
        .setSubject(userId)
        .setJti(sessionId)
        .setExpirationTime(Math.floor(expiresAt.getTime() / 1000))
        .sign(await signingKey);
    },

    deriveKey(purpose) {
      const secret = Buffer.from(config.IDENTITY_KEY.d as string, 'base64url');
      return Buffer.from(hkdfSync('sha256', secret, '', `${name} ${purpose}`, 32));
    },

    async verify(token) {
      const found = known.get(token);
      if (found !== undefined) {
        if (Date.now() < found.expiresAt) return found.identity;
        known.delete(token);
      }
      const checked = await check(token);
      if (known.size >= rememberedTokens) known.delete(known.keys().next().value as string);
      known.set(token, checked);
      return checked.identity;
    },
  };

  async function check(token: string): Promise<{ identity: Identity; expiresAt: number }> {
    try {
      const { payload, protectedHeader } = await jwtVerify(token, trustedKeys, {
        algorithms: ['EdDSA'],
        requiredClaims: ['exp', 'iss'],
      });
      const expiresAt = (payload.exp as number) * 1000;
      // A signature only proves which service signed: that it signed in its own name must be checked as well.
      if (payload.iss !== protectedHeader.kid) throw invalid();
      if (protectedHeader.typ === serviceTokenType && payload.aud === name) {
        return { identity: { kind: 'service', name: payload.iss as string }, expiresAt };
      }
      if (protectedHeader.typ === userTokenType && payload.iss === userTokenIssuer) {
        const { sub: userId, username, admin } = payload;
        if (typeof userId !== 'string' || typeof username !== 'string') throw invalid();
        return { identity: { kind: 'user', userId, username, admin: admin === true }, expiresAt };
      }
      throw invalid();
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        throw new HubError('UNAUTHENTICATED', 'TOKEN_EXPIRED', 'The token has expired: log in again');
      }
      if (error instanceof errors.JOSEError) throw invalid(error);
      throw error;
    }
  }
}

function invalid(cause?: unknown): HubError {
  return new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The token is not valid', { cause });
}

/** Makes a key pair for each name: private JWKs by name, and the set of the public ones. All of them as JSON text. */
export async function generateKeys(
  names: readonly string[],
): Promise<{ privateKeys: Record<string, string>; trusted: string }> {
  const pairs = await Promise.all(
    names.map(async (name) => {
      const { privateKey, publicKey } = await generateKeyPair('EdDSA', { extractable: true });
      return {
        name,
        privateJwk: { ...(await exportJWK(privateKey)), kid: name, alg: 'EdDSA' },
        publicJwk: { ...(await exportJWK(publicKey)), kid: name, alg: 'EdDSA', use: 'sig' },
      };
    }),
  );
  return {
    privateKeys: Object.fromEntries(pairs.map(({ name, privateJwk }) => [name, JSON.stringify(privateJwk)])),
    trusted: JSON.stringify({ keys: pairs.map(({ publicJwk }) => publicJwk) }),
  };
}

/** Of a key pair. The one that RFC 8037 prints (appendix A.2) is everybody's. */
const publicPart = z.string().refine((x) => x !== '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo');
const privateKeySchema = z.looseObject({
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  kid: z.string().min(1),
  d: z.string(),
  x: publicPart,
});
const keySetSchema = z.object({
  keys: z
    .array(z.looseObject({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), kid: z.string().min(1), x: publicPart }))
    .min(1),
});

function parseKey(text: string, context: z.RefinementCtx): JWK {
  const result = privateKeySchema.safeParse(parseJson(text));
  if (result.success) return result.data;
  context.addIssue('must be a private Ed25519 key as a JWK with a kid, and none that is printed somewhere');
  return z.NEVER;
}

function parseKeySet(text: string, context: z.RefinementCtx): JSONWebKeySet {
  const result = keySetSchema.safeParse(parseJson(text));
  if (result.success) return result.data;
  context.addIssue('must be a JWK set of public Ed25519 keys, each with a kid, and none that is printed somewhere');
  return z.NEVER;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
