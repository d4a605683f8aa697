import test from 'ava';
import fc from 'fast-check';
import { BufferList } from './buffer-list.ts';

test('gathered: what came is what there is, in its order', (t) => {
  const piece = fc.oneof(fc.nat({ max: 50 }), fc.constantFrom(0, 4_095, 4_096, 10_000));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 200 }), (sizes) => {
      const gathered = new BufferList();
      const pieces = sizes.map((size, index) => Buffer.alloc(size, index % 251));
      for (const each of pieces) gathered.push(each);
      const all = Buffer.concat(pieces);
      return gathered.size === all.length && gathered.whole().equals(all) && gathered.whole().equals(all);
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('gathered: a million pieces of a byte each are no million buffers', (t) => {
  const gathered = new BufferList();
  const byte = Buffer.from('x');
  for (let count = 0; count < 1_000_000; count += 1) gathered.push(byte);
  t.is(gathered.size, 1_000_000);
  t.true(gathered.parts < 40, `${gathered.parts}`);
  t.is(gathered.whole().toString(), 'x'.repeat(1_000_000));
});
