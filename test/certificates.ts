import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

/** X.509 certificates (RFC 5280) for tests, in DER written by hand: Node reads them, but issues none. */

/** PEM. */
export interface Issued {
  cert: string;
  key: string;
}

export interface Authority {
  /** Its own certificate, PEM. */
  cert: string;
  /** A certificate for these hosts: names, or IPv4 addresses. */
  issue(hosts: readonly string[], options?: { expiresAt?: Date }): Issued;
}

const day = 86_400_000;

/** Makes an authority that signs with a new key. */
export function createAuthority(name: string): Authority {
  const keys = newKeys();
  const issuer = distinguishedName(name);
  const later = new Date(Date.now() + day);
  const cert = certificate({
    issuer,
    subject: issuer,
    publicKey: keys.publicKey,
    signedWith: keys.privateKey,
    expiresAt: later,
    extensions: [extension(oids.basicConstraints, sequence(boolean(true)))],
  });
  return {
    cert,
    issue(hosts, { expiresAt = later } = {}) {
      const { publicKey, privateKey } = newKeys();
      const names = hosts.map((host) =>
        /^[\d.]+$/.test(host) ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host)),
      );
      return {
        key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
        cert: certificate({
          issuer,
          subject: distinguishedName(hosts[0] ?? ''),
          publicKey,
          signedWith: keys.privateKey,
          expiresAt,
          extensions: [extension(oids.subjectAltName, sequence(...names))],
        }),
      };
    },
  };
}

/** Writes PEM files and returns the settings that name them: `<prefix>_CERT`, `<prefix>_KEY` and `<prefix>_CA`. */
export async function writeCertificates(
  folder: string,
  prefix: string,
  issued: Issued,
  authority: Pick<Authority, 'cert'>,
): Promise<Record<string, string>> {
  const contents = { CERT: issued.cert, KEY: issued.key, CA: authority.cert };
  const name = randomBytes(6).toString('hex');
  const settings = Object.entries(contents).map(async ([kind, pem]) => {
    const file = path.join(folder, `${name}-${kind.toLowerCase()}.pem`);
    await writeFile(file, pem, { mode: 0o600 });
    return [`${prefix}_${kind}`, file] as const;
  });
  return Object.fromEntries(await Promise.all(settings));
}

function newKeys() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

interface ToBeSigned {
  issuer: Buffer;
  subject: Buffer;
  publicKey: KeyObject;
  signedWith: KeyObject;
  expiresAt: Date;
  extensions: Buffer[];
}

function certificate({ issuer, subject, publicKey, signedWith, expiresAt, extensions }: ToBeSigned): string {
  const algorithm = sequence(oid(oids.ecdsaWithSha256));
  const serial = Buffer.concat([Buffer.of(1), randomBytes(15)]);
  const content = sequence(
    der(0xa0, integer(Buffer.of(2))),
    integer(serial),
    algorithm,
    issuer,
    sequence(time(new Date(Date.now() - 2 * day)), time(expiresAt)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  );
  const signed = sequence(content, algorithm, bits(sign('sha256', content, signedWith)));
  const lines = signed.toString('base64').match(/.{1,64}/g) as string[];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

const oids = {
  commonName: '550403',
  basicConstraints: '551d13',
  subjectAltName: '551d11',
  ecdsaWithSha256: '2a8648ce3d040302',
};

/** A tag, a length and a content (X.690). */
function der(tag: number, content: Buffer): Buffer {
  const size: number[] = [];
  for (let rest = content.length; rest > 0; rest = Math.floor(rest / 256)) size.unshift(rest % 256);
  const length = content.length < 128 ? [content.length] : [0x80 | size.length, ...size];
  return Buffer.concat([Buffer.of(tag, ...length), content]);
}

const sequence = (...parts: Buffer[]) => der(0x30, Buffer.concat(parts));
const integer = (bytes: Buffer) => der(0x02, bytes);
const boolean = (value: boolean) => der(0x01, Buffer.of(value ? 0xff : 0));
const bits = (bytes: Buffer) => der(0x03, Buffer.concat([Buffer.of(0), bytes]));
const oid = (hex: string) => der(0x06, Buffer.from(hex, 'hex'));
/** UTCTime: the digits of YYMMDDHHMMSS, and Z. */
const time = (at: Date) => der(0x17, Buffer.from(`${at.toISOString().replaceAll(/\D/g, '').slice(2, 14)}Z`));
const extension = (id: string, content: Buffer) => sequence(oid(id), der(0x04, content));
const distinguishedName = (name: string) =>
  sequence(der(0x31, sequence(oid(oids.commonName), der(0x0c, Buffer.from(name)))));
