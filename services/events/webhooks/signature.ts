import { createHmac, randomBytes } from 'node:crypto';

const secretBytes = 32;

/** The bytes of a new secret. */
export function newSecret(): Buffer {
  return randomBytes(secretBytes);
}

/** A secret as its owner is shown it, and as libraries for Standard Webhooks take it. */
export function secretText(secret: Uint8Array): string {
  return `whsec_${Buffer.from(secret).toString('base64')}`;
}

/**
 * The headers that Standard Webhooks asks for, with a signature for each of the secrets.
 *
 * @param at when it is sent: receivers refuse what is more than 5 minutes old
 */
export function signatureHeaders(
  { id, at, body }: { id: string; at: Date; body: string },
  secrets: readonly Uint8Array[],
): Record<'webhook-id' | 'webhook-timestamp' | 'webhook-signature', string> {
  const seconds = String(Math.floor(at.getTime() / 1_000));
  const signed = `${id}.${seconds}.${body}`;
  const signatures = secrets.map((secret) => `v1,${createHmac('sha256', secret).update(signed).digest('base64')}`);
  return { 'webhook-id': id, 'webhook-timestamp': seconds, 'webhook-signature': signatures.join(' ') };
}
