import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { registry } from '../../test/echo-backend.ts';
import { grpcGatewayBodies } from '../dialects/grpc-gateway/bodies.ts';
import { parseJson } from '../dialects/json-body.ts';
import type { Binding } from '../rules/bindings.ts';
import { firstValue, membersIn, maxValues, outlineOf } from './json-values.ts';
import { Problem } from '../http/problem.ts';
import { child, Reading, root } from './reading.ts';
import { Fault, messageType } from './schema.ts';
import { valueFromText, scalarFromText, wellKnownFromJson } from '../dialects/grpc-gateway/text.ts';

/** One after another, since each is compared by its time. */
const serial = test.serial;
/** As large as a body may be for whoever stands alone; a quarter of it already takes a thousand times too long where it can. */
const largest = 64 * 1024 * 1024;
const enough = largest / 4;
/** How many times as long as JSON.parse alone something may take, beside a time that anything may take on a busy machine. */
const patience = { ratio: 40, milliseconds: 2_000 };

function timed<T>(work: () => T): { result: T; took: number } {
  const began = performance.now();
  const result = work();
  return { result, took: performance.now() - began };
}

function codeOf(work: () => unknown): string {
  try {
    work();
    return 'none';
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return `${error.status} ${error.message}`;
  }
}

const times = (text: string, bytes: number) => text.repeat(Math.floor(bytes / text.length));

/** JSON of the largest size that is right. */
const large: Readonly<Record<string, () => string>> = {
  'a text with colons': () => `{"a":"${times(':', largest - 8)}"}`,
  'a text of escaped quotes': () => String.raw`{"a":"${times(String.raw`\"`, enough)}"}`,
  'a text of backslashes': () => `{"a":"${times('\\\\', enough)}"}`,
  'a text with nearly long numbers': () => `{"a":"${times('123456789012345a', enough)}"}`,
  'a name of a member': () => `{"${times('a:', enough)}":1}`,
  'many members': () => `{${Array.from({ length: 300_000 }, (_, index) => `"k${index}":${index}`).join(',')}}`,
  'many short values': () => `[${times('1,', 2 * (maxValues - 10))}1]`,
  'many empty objects': () => `[${times('{},', 0.5 * maxValues)}{}]`,
  'many texts with colons': () => `[${times('"a:b",', 2 * maxValues)}1]`,
  'many long numbers': () => `[${times('1234567890123456789,', 4_000_000)}1]`,
  'lists in lists': () => '['.repeat(9_999) + ']'.repeat(9_999),
  'objects in objects': () => `${'{"a":'.repeat(9_999)}1${'}'.repeat(9_999)}`,
};

for (const [what, make] of Object.entries(large)) {
  serial(`large: ${what} is read in about the time that JSON.parse takes`, (t) => {
    const text = make();
    const body = Buffer.from(text);
    t.true(body.length <= largest);
    const plain = timed(() => JSON.parse(text) as unknown);
    const { took } = timed(() => streamedValue(firstValue(body) as Buffer));
    t.true(took < patience.ratio * plain.took + patience.milliseconds, `${took} ms, JSON.parse ${plain.took} ms`);
  });
}

const { streamedValue } = grpcGatewayBodies;

test('large: what nests too deeply, holds too much or says a member twice is refused for that', (t) => {
  const refusal = (text: string) => codeOf(() => streamedValue(firstValue(Buffer.from(text)) as Buffer));
  const deep = '400 The body is nested too deeply';
  t.is(refusal('['.repeat(20_000) + ']'.repeat(20_000)), deep);
  t.is(refusal('['.repeat(20_000)), deep);
  t.is(refusal('{"a":'.repeat(20_000)), deep);
  t.regex(refusal(`[${'{},'.repeat(maxValues / 2)}1]`), /^413 .* more than \d+ values/);
  const twice = '400 The body has an object in which a member is given twice';
  t.is(refusal('{"a":1,"a":2}'), twice);
  t.is(refusal(`{"a":"${':'.repeat(1_000)}","b":[{"c":{"d":1,"d":1}}]}`), twice);
  t.is(refusal(`{"__proto__":1,"__proto__":2}`), twice);
  t.is(refusal(String.raw`{"a":1,"\u0061":2}`), twice);
  t.is(refusal(`{${'"a":1,'.repeat(100_000)}"a":1}`), twice);
  for (const right of [
    '{"a:b":"c:d"}',
    String.raw`{"a\":":"\\"}`,
    '{"":{"":[]}}',
    '["a:",{"b":":"}]',
    '{"__proto__":{"a":1}}',
  ]) {
    t.is(refusal(right), 'none', right);
    t.is(outlineOf(Buffer.from(right)).members, membersIn(JSON.parse(right)), right);
  }
});

test('large: numbers of many digits are kept, and digits in a text are none', (t) => {
  t.is(outlineOf(Buffer.from('{"a":"12345678901234567890"}')).hasLongNumber, false);
  t.deepEqual(parseJson(Buffer.from('{"a":12345678901234567890}')).value, { a: 12345678901234567890n });
  t.deepEqual(parseJson(Buffer.from('{"a":1234567890123456}')).value, { a: 1234567890123456 });
});

serial('large: only the first value of a body is looked at', (t) => {
  const { result, took } = timed(() => firstValue(Buffer.from(times('1 ', enough))));
  t.is(result?.toString(), '1');
  t.true(took < patience.milliseconds, `${took} ms`);
});

test('a body: of a list or object all is read up to its end, whatever is behind it, and as if that had been cut off before', (t) => {
  const part = { body: 'a field' } as unknown as Binding;
  const answerTo = (read: () => unknown) => {
    try {
      return read();
    } catch (error) {
      return (error as Problem).message;
    }
  };
  const asItIs = (body: Buffer) =>
    answerTo(() => (grpcGatewayBodies.json(body, undefined, part) as { value: unknown }).value);
  const cutOff = (body: Buffer) => answerTo(() => streamedValue(firstValue(body) as Buffer));
  const behind = fc.oneof(fc.constantFrom('', ' ', '}', '{"a":1}', '\\', '"', '\u00ff'), fc.string());
  const structure = fc
    .oneof(fc.array(fc.jsonValue()), fc.dictionary(fc.string(), fc.jsonValue()))
    .map((value) => JSON.stringify(value));
  fc.assert(
    fc.property(structure, behind, (text, more) => {
      t.deepEqual(asItIs(Buffer.from(text + more)), streamedValue(Buffer.from(text)));
    }),
  );
  const bytes = fc.array(fc.constantFrom(...Buffer.from('{}[]",:\\ a1'), 0xff), { maxLength: 12 });
  fc.assert(
    fc.property(fc.constantFrom('{', '[', '{"a":', '["\\'), bytes, (begin, rest) => {
      const body = Buffer.concat([Buffer.from(begin), Buffer.from(rest)]);
      t.deepEqual(asItIs(body), cutOff(body));
    }),
    { numRuns: 2_000 },
  );
});

test('large: a long path names what holds a value, and is not repeated for each of the values below', (t) => {
  const short = child(root, 'children', 'children');
  t.deepEqual(child(short, 'text_value', 'textValue'), { field: 'children.text_value', sent: 'children.textValue' });
  const long = child(short, 'k'.repeat(1_000_000), 'k'.repeat(1_000_000));
  t.is(child(long, 'text_value', 'textValue'), long);
  const reading = new Reading();
  for (let index = 0; index < 100_000; index++) {
    reading.spell({ field: `${'f'.repeat(1_000)}${index}`, sent: `${'s'.repeat(1_000)}${index}` });
  }
  t.is(reading.asSent(`${'f'.repeat(1_000)}1`), `${'s'.repeat(1_000)}1`);
  t.is(reading.asSent(`${'f'.repeat(1_000)}99999`), `${'f'.repeat(1_000)}99999`);
});

/** Texts for values that are read to the letter, by what reads them. */
const texts: Readonly<Record<string, [(text: string) => unknown, string[]]>> = {
  'a real number': [(text) => scalarFromText(1, text), ['1', '.1', '1.', '1e', '0.0']],
  'a whole number': [(text) => scalarFromText(5, text), ['1', '+', '0']],
  base64: [(text) => scalarFromText(12, text), ['A', '=', 'A=', '\r\n', '-', '_/']],
  'a length of time': [
    (text) =>
      valueFromText({ kind: 'message', message: messageType(registry.getMessage('google.protobuf.Duration')!) }, text),
    ['1', '1s', '1.', '.1', '1ms', '0.1h'],
  ],
  'a duration': [(text) => wellKnownFromJson('google.protobuf.Duration', text), ['1', '0', '1.', '.1', '-']],
  'a time': [(text) => wellKnownFromJson('google.protobuf.Timestamp', text), ['1', '1-', 'T', ':', ',']],
  'a field mask': [(text) => wellKnownFromJson('google.protobuf.FieldMask', text), ['a', 'a.', 'a,', '.', ',', 'A']],
};

for (const [what, [read, parts]] of Object.entries(texts)) {
  serial(`large: ${what} is read in one go, however long its text`, (t: ExecutionContext) => {
    for (const part of parts) {
      for (const end of ['', '!', 's', 'x']) {
        const text = times(part, enough / 4) + end;
        const { result, took } = timed(() => read(text));
        t.true(took < patience.milliseconds * 2, `${part} ${end}: ${took} ms`);
        t.true(result instanceof Fault || result !== undefined);
      }
    }
  });
}
