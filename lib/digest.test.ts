import { createHash } from 'node:crypto';
import test from 'ava';
import { parseDigest } from './digest.ts';
import { HubError } from './errors.ts';

test('parseDigest: RFC 9530, the strongest known algorithm counts, others are passed over', (t) => {
  const digest = (algorithm: string) => createHash(algorithm).update('x').digest();
  const member = (name: string, algorithm: string) => `${name}=:${digest(algorithm).toString('base64')}:`;
  t.is(parseDigest('  '), undefined);
  t.deepEqual(parseDigest(member('sha-256', 'sha256')), { algorithm: 'sha256', digest: digest('sha256') });
  const both = `${member('sha-256', 'sha256')}, ${member('sha-512', 'sha512')}, ${member('md5', 'md5')}`;
  t.deepEqual(parseDigest(both), { algorithm: 'sha512', digest: digest('sha512') });
  for (const wrong of ['x', 'sha-256', 'sha-256=abc', 'sha-256=:YWJj:', 'md5=:YWJj:', 'sha-256=:a b:']) {
    const error = t.throws(() => parseDigest(wrong), { instanceOf: HubError }, wrong) as HubError;
    t.is(error.fields[0]?.field, 'content_digest');
  }
});
