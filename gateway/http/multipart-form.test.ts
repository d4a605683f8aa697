import test from 'ava';
import fc from 'fast-check';
import { boundaryIn, Form } from './multipart-form.ts';

/** The parts of a form whose bytes come in pieces of so many. */
function read(boundary: string, body: Buffer, size: number) {
  const parts: { name: string | undefined; bytes: Buffer[] }[] = [];
  const form = new Form(boundary, {
    part: (name) => void parts.push({ name, bytes: [] }),
    bytes: (piece) => void parts.at(-1)!.bytes.push(Buffer.from(piece)),
  });
  for (let at = 0; at < body.length; at += size) form.write(body.subarray(at, at + size));
  const told = parts.map(({ name, bytes }) => [name, Buffer.concat(bytes).toString('latin1')]);
  return { isWhole: form.isWhole, parts: told };
}

/** The same however the bytes come. */
function parts(t: { deepEqual(a: unknown, b: unknown): unknown }, boundary: string, text: string) {
  const body = Buffer.from(text, 'latin1');
  const whole = read(boundary, body, body.length);
  for (const size of [1, 2, 3, 7, 50]) t.deepEqual(read(boundary, body, size), whole);
  return whole;
}

for (const [contentType, expected] of [
  ['multipart/form-data; boundary=abc', 'abc'],
  ['multipart/form-data;boundary=abc', 'abc'],
  ['multipart/form-data; Boundary="abc"', 'abc'],
  ['multipart/form-data; boundary="a b:c;d=e"', 'a b:c;d=e'],
  ['multipart/form-data; boundary="a\\"b"', 'a"b'],
  ["multipart/form-data; charset=utf-8; boundary='()+_,-./:=?", "'()+_,-./:=?"],
  ['multipart/form-data; boundary=abc; charset=utf-8', 'abc'],
  [`multipart/form-data; boundary=${'x'.repeat(70)}`, 'x'.repeat(70)],
  [`multipart/form-data; boundary=${'x'.repeat(71)}`, undefined],
  ['multipart/form-data; boundary=""', undefined],
  ['multipart/form-data; boundary="abc ', undefined],
  ['multipart/form-data; boundary="abc "', undefined],
  ['multipart/form-data; x="boundary=a"', undefined],
  ['multipart/form-data', undefined],
] as const) {
  test(`form: the boundary of ${contentType}`, (t) => {
    t.is(boundaryIn(contentType), expected);
  });
}

const disposition = 'Content-Disposition: form-data; name="file"';

for (const [who, body] of [
  ['a browser', `--b\r\n${disposition}; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n`],
  ['curl', `--b\r\n${disposition}; filename="-"\r\nContent-Type: application/octet-stream\r\n\r\nhello\r\n--b--\r\n`],
  ['Python, without a filename', `--b\r\n${disposition}\r\n\r\nhello\r\n--b--\r\n`],
  ['Go, without a last line end', `--b\r\n${disposition}; filename="a"\r\n\r\nhello\r\n--b--`],
  [
    'React Native',
    `--b\r\ncontent-disposition: form-data; name="file"; filename="a"; filename*=utf-8''a\r\ncontent-type: image/png\r\n\r\nhello\r\n--b--\r\n`,
  ],
  ['an unquoted name', '--b\r\nContent-Disposition: form-data; filename=x; NAME=file\r\n\r\nhello\r\n--b--\r\n'],
  ['blanks behind the boundaries', `--b \t\r\n${disposition}\r\n\r\nhello\r\n--b--  \r\n`],
  ['something before and after', `This is a form.\r\n--b\r\n${disposition}\r\n\r\nhello\r\n--b--\r\n--b\r\nnothing`],
  ['an encoding that is none', `--b\r\nContent-Transfer-Encoding: binary\r\n${disposition}\r\n\r\nhello\r\n--b--\r\n`],
  ['a folded header', '--b\r\nContent-Disposition: form-data;\r\n name="file"\r\n\r\nhello\r\n--b--\r\n'],
] as const) {
  test(`form: as ${who} sends it`, (t) => {
    t.deepEqual(parts(t, 'b', body), { isWhole: true, parts: [['file', 'hello']] });
  });
}

test('form: several parts, of which some are empty, have no name, or hold what looks like a boundary', (t) => {
  const body = [
    `--b\r\nContent-Disposition: form-data; name="a%22%0D%0A"\r\n\r\n\r\n`,
    '--b\r\n\r\nno headers\r\n',
    '--b\r\nContent-Disposition: attachment; name="c"\r\n\r\nno form-data\r\n',
    `--b\r\n${disposition}\r\n\r\n\r\n--bb\r\n--b x\r\n--\r\n--b-\r\n \r\n`,
    '--b--',
  ].join('');
  t.deepEqual(parts(t, 'b', body), {
    isWhole: true,
    parts: [
      ['a"\r\n', ''],
      [undefined, 'no headers'],
      [undefined, 'no form-data'],
      ['file', '\r\n--bb\r\n--b x\r\n--\r\n--b-\r\n '],
    ],
  });
  t.deepEqual(parts(t, 'b', '--b--\r\n'), { isWhole: true, parts: [] });
});

for (const [what, body] of [
  ['nothing', ''],
  ['another boundary', `--c\r\n${disposition}\r\n\r\nhello\r\n--c--\r\n`],
  ['no last boundary', `--b\r\n${disposition}\r\n\r\nhello\r\n--b\r\n`],
  ['an end within the content', `--b\r\n${disposition}\r\n\r\nhel`],
  ['an end within the headers', `--b\r\n${disposition}`],
] as const) {
  test(`form: one with ${what} is not whole`, (t) => {
    t.false(parts(t, 'b', body).isWhole);
  });
}

for (const [what, body] of [
  ['a line that is no header', '--b\r\nnonsense\r\n\r\nhello\r\n--b--'],
  ['bytes in base64', `--b\r\n${disposition}\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--`],
  ['endless headers', `--b\r\nX: ${'x'.repeat(20_000)}`],
  ['very many parts', `${'--b\r\n\r\n\r\n'.repeat(1_001)}--b--`],
] as const) {
  test(`form: one with ${what} is refused`, (t) => {
    t.throws(() => parts(t, 'b', body));
  });
}

test('form: whatever bytes a part holds, they are told as they are, in whatever pieces they come', (t) => {
  const bytes = fc.array(fc.constantFrom('\r', '\n', '-', 'b', ' ', 'x'), { maxLength: 60 }).map((all) => all.join(''));
  const isDelimiter = (content: string) => /\r\n--b(--|[ \t]*\r\n)/.test(`\r\n${content}\r\n--b`.slice(0, -3));
  const property = fc.property(fc.array(bytes, { maxLength: 4 }), fc.integer({ min: 1, max: 40 }), (contents, size) => {
    fc.pre(!contents.some((content) => isDelimiter(`${content}\r\n`)));
    const body = `${contents.map((content) => `--b\r\n${disposition}\r\n\r\n${content}\r\n`).join('')}--b--`;
    t.deepEqual(read('b', Buffer.from(body), size), {
      isWhole: true,
      parts: contents.map((content) => ['file', content]),
    });
  });
  fc.assert(property, { numRuns: 2_000 });
});
