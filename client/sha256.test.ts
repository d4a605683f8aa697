import { createHash, randomBytes } from 'node:crypto';
import test from 'ava';
import { beginSha256, Sha256 } from './sha256.ts';

test('Sha256: of bytes of any length, in any pieces, it is what Node says', (t) => {
  for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1_000, 100_003]) {
    const bytes = randomBytes(length);
    const expected = createHash('sha256').update(bytes).digest('hex');
    for (const size of [1, 7, 64, 100, 1 << 20]) {
      const hash = new Sha256();
      for (let at = 0; at < length; at += size) hash.update(bytes.subarray(at, at + size));
      t.is(Buffer.from(hash.digest()).toString('hex'), expected, `${length} in pieces of ${size}`);
    }
    const own = beginSha256();
    own.update(bytes);
    t.is(Buffer.from(own.digest()).toString('hex'), expected);
  }
});
