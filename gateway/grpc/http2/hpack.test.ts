import test from 'ava';
import { HpackDecoder, HpackError, maxFieldBytes, writeField, writeStatic } from './hpack.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const plain = (fields: object | undefined) => fields && { ...fields };

/** With strings in Huffman's code, and a table of 256 bytes out of which entries fall. */
test('decode: the answers of RFC 7541, C.6', (t) => {
  const decoder = new HpackDecoder();
  const first = `3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
    1718 63c7 8f0b 97c8 e9ae 82ae 43d3`;
  const common = {
    'cache-control': 'private',
    date: 'Mon, 21 Oct 2013 20:13:21 GMT',
    location: 'https://www.example.com',
  };
  t.deepEqual(plain(decoder.decode(hex(first))), { ':status': '302', ...common });
  t.deepEqual(plain(decoder.decode(hex('4883 640e ffc1 c0bf'))), { ':status': '307', ...common });
  const third = `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7
    b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`;
  t.deepEqual(plain(decoder.decode(hex(third))), {
    ':status': '200',
    ...common,
    date: 'Mon, 21 Oct 2013 20:13:22 GMT',
    'content-encoding': 'gzip',
    'set-cookie': ['foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
  });
});

/** With strings as they are. */
test('decode: the requests of RFC 7541, C.3', (t) => {
  const decoder = new HpackDecoder();
  const common = { ':method': 'GET', ':scheme': 'http', ':path': '/', ':authority': 'www.example.com' };
  t.deepEqual(plain(decoder.decode(hex('8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d'))), common);
  t.deepEqual(plain(decoder.decode(hex('8286 84be 5808 6e6f 2d63 6163 6865'))), {
    ...common,
    'cache-control': 'no-cache',
  });
});

test('decode: what has the name of something else is a field like any other, and repeated ones are all kept', (t) => {
  const block = Buffer.alloc(1_000);
  const sent: [string, string][] = [
    ['__proto__', 'a'],
    ['constructor', 'b'],
    ['x', '1'],
    ['x', '2'],
    ['cookie', 'c'],
    ['cookie', 'd'],
    ['set-cookie', 'e'],
    ['set-cookie', 'f'],
  ];
  const end = sent.reduce((at, [name, value]) => writeField(block, at, name, value), 0);
  const fields = new HpackDecoder().decode(block.subarray(0, end));
  t.deepEqual(Object.entries(fields!), [
    ['__proto__', 'a'],
    ['constructor', 'b'],
    ['x', '1, 2'],
    ['cookie', 'c; d'],
    ['set-cookie', ['e', 'f']],
  ]);
});

test('writeField, writeStatic: what is written is read, whatever its length, and takes no more than was said', (t) => {
  for (const length of [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 70_000]) {
    const [name, value] = ['n'.repeat(Math.max(1, length)), 'v'.repeat(length)];
    for (const write of [writeField, writeStatic]) {
      const block = Buffer.alloc(maxFieldBytes(name, value));
      const end = write(block, 0, name, value);
      t.true(end <= block.length);
      t.deepEqual(plain(new HpackDecoder().decode(block.subarray(0, end))), { [name]: value });
    }
  }
  const block = Buffer.alloc(100);
  t.is(writeStatic(block, 0, ':method', 'POST'), 1);
  t.is(block[0], 0x83);
});

test('decode: a block that is malformed is refused', (t) => {
  const cases: [string, string][] = [
    ['an index of 0', '80'],
    ['an index behind the table', 'be'],
    ['a string that ends behind the block', '0003 6162'],
    ['a block that ends in a field', '00 01 61'],
    ['an integer that goes on and on', 'ff ffff ffff ffff ffff 7f'],
    ['a table that was not offered', '3f e2 1f ff'],
    ['padding that is too long', '00 01 61 82 1fff'],
    ['padding of other bits', '00 01 61 81 18'],
    ['the mark of the end within', '00 01 61 84 ffff ffff'],
  ];
  for (const [what, block] of cases) {
    t.throws(() => new HpackDecoder().decode(hex(block)), { instanceOf: HpackError }, what);
  }
});

test('decode: fields that HTTP forbids, or too many, are no fields; what comes behind them is understood', (t) => {
  const literal = (name: string, value: string) => {
    const block = Buffer.alloc(maxFieldBytes(name, value));
    return block.subarray(0, writeField(block, 0, name, value));
  };
  const wrong: [string, string][] = [
    ['X-Upper', 'a'],
    ['x y', 'a'],
    ['x:', 'a'],
    [':', 'a'],
    ['', 'a'],
    ['x\0', 'a'],
    ['x\u00e9', 'a'],
    ['x"', 'a'],
    ['x', 'a\nb'],
    ['x', 'a\rb'],
    ['x', 'a\0b'],
    ['x', 'a\u0001b'],
    ['x', 'a\u007fb'],
  ];
  const muchOutOfLittle = hex(`40 01 61 7f 811e ${'62'.repeat(3_968)} ${'be'.repeat(100)}`);
  for (const [what, block] of [
    ...wrong.map(([name, value]) => [`${name}: ${value}`, literal(name, value)] as const),
    ['much out of little', muchOutOfLittle] as const,
  ]) {
    const decoder = new HpackDecoder();
    t.is(decoder.decode(Buffer.concat([literal('a', 'b'), block, literal('c', 'd')])), undefined, what);
    // It is in the table that the other side builds on.
    t.is(decoder.decode(hex('40 03 58 2d59 01 61')), undefined, what);
    t.is(decoder.decode(hex('be')), undefined, what);
    t.deepEqual(plain(decoder.decode(hex('40 01 78 01 79'))), { x: 'y' }, what);
    t.deepEqual(plain(decoder.decode(hex('be'))), { x: 'y' }, what);
  }
  for (const value of ['', 'a\tb', '\u00e9', ' a ']) {
    t.deepEqual(plain(new HpackDecoder().decode(literal('x!-_.', value))), { 'x!-_.': value });
  }
});
