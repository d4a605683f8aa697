import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ConfigError } from './config.ts';

/** A certificate with what may follow it in its chain, and its key. PEM. */
export interface KeyPair {
  cert: Buffer;
  key: Buffer;
}

/**
 * Reads the certificate and the key that two settings name; undefined if neither does. They are read once: a new certificate
 * needs a restart.
 *
 * @throws ConfigError if only one is named, or they can't be read, have expired, or don't belong together
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

/** Reads a PEM file of certificates. @throws ConfigError if it is none */
export function readCertificates(name: string, file: string): Buffer {
  const pem = readPem(name, file);
  if (attempt(() => new X509Certificate(pem)) !== undefined) return pem;
  throw new ConfigError([`${name} must be a PEM file with a certificate`]);
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
