import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { ConfigError } from './config.ts';

/** A certificate chain and its private key, as PEM. */
export interface KeyPair {
  cert: Buffer;
  key: Buffer;
}

/**
 * Reads the certificate and the key that two settings name; undefined if neither is set. They are read once: a new certificate needs a
 * restart.
 *
 * @throws ConfigError if only one is set, or they can't be read, have expired, or don't belong together
 */
export function readKeyPair(
  names: { cert: string; key: string },
  config: Record<string, unknown>,
): KeyPair | undefined {
  const { [names.cert]: certFile, [names.key]: keyFile } = config as Record<string, string | undefined>;
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile === undefined || keyFile === undefined) {
    throw new ConfigError([`set both of ${names.cert} and ${names.key}, or none`]);
  }
  const cert = readCertificates(names.cert, certFile);
  const key = readPem(names.key, keyFile);
  const own = new X509Certificate(cert);
  if (own.validToDate.getTime() < Date.now()) {
    throw new ConfigError([`${names.cert} expired on ${own.validToDate.toISOString()}`]);
  }
  const belongs = attempt(() => own.checkPrivateKey(createPrivateKey(key)));
  if (belongs === undefined)
    throw new ConfigError([`${names.key} must be a PEM file with a private key, not encrypted`]);
  if (!belongs) throw new ConfigError([`${names.key} is not the key of ${names.cert}`]);
  return { cert, key };
}

/** Reads a PEM file of certificates. @throws ConfigError if it holds none */
export function readCertificates(name: string, file: string): Buffer {
  const pem = readPem(name, file);
  if (attempt(() => new X509Certificate(pem)) !== undefined) return pem;
  throw new ConfigError([`${name} must be a PEM file with a certificate`]);
}

/** Whether the first certificate of a PEM chain is signed by a certificate of the authority, directly or through the rest of the chain. */
export function isSignedBy(chain: Buffer, authority: Buffer): boolean {
  const [authorities, [own, ...between]] = [certificatesIn(authority), certificatesIn(chain)];
  for (let current = own; current !== undefined;) {
    const issued = current;
    const isIssuer = (by: X509Certificate) => issued.checkIssued(by) && issued.verify(by.publicKey);
    if (authorities.some(isIssuer)) return true;
    current = between.find(isIssuer);
    // Each intermediate is used once, since some sign one another.
    if (current !== undefined) between.splice(between.indexOf(current), 1);
  }
  return false;
}

/** Those of the given host names and addresses that a PEM certificate is valid for. */
export function namesIn(cert: Buffer, hosts: readonly string[]): string[] {
  const own = new X509Certificate(cert);
  return hosts.filter((host) => (isIP(host) === 0 ? own.checkHost(host) : own.checkIP(host)) !== undefined);
}

function certificatesIn(pem: Buffer): X509Certificate[] {
  const each = pem.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return each.map((one) => new X509Certificate(one));
}

function readPem(name: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError([`${name} can't be read (${(error as NodeJS.ErrnoException).code ?? 'no such file'})`]);
  }
}

/** What the work returns, or undefined if it throws. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
