import { createHash } from 'node:crypto';
import { fromBinary, fromJson, toBinary, toJson, type DescMessage, type JsonValue } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import test from 'ava';
import { registry } from '../../test/echo-backend.ts';
import { parseJson } from '../dialects/json-body.ts';
import { hubJsonReader } from '../dialects/hub/json.ts';
import { hubJsonForm } from '../dialects/hub/dialect.ts';
import { Reading, root } from './reading.ts';
import { RequestJson } from './request-json.ts';
import { writeDraft, type Draft } from './draft.ts';
import { ResponseJson } from './response-json.ts';
import { messageType } from './schema.ts';
import { wellKnownTypes } from './well-known.ts';

const everything = registry.getMessage('transcoding.v1.Everything') as DescMessage;
const type = messageType(everything);
const requests = new RequestJson(registry, hubJsonReader);
const responses = new ResponseJson(registry, hubJsonForm);

function read(json: unknown): { bytes: Uint8Array; reading: Reading } {
  const draft: Draft = new Map();
  const reading = new Reading();
  requests.message(type, json, draft, reading, root);
  return { bytes: writeDraft(draft), reading };
}

/** What a request is taken for, as protobuf-es prints it. */
function understood(json: unknown): JsonValue {
  const { bytes, reading } = read(json);
  if (reading.violations.length > 0) throw new Error(JSON.stringify(reading.violations));
  return toJson(everything, fromBinary(everything, bytes), { registry, useProtoFieldName: true });
}

/** What is wrong with a request, by the path that the client wrote. */
function wrong(json: unknown): Record<string, string> {
  return Object.fromEntries(read(json).reading.violations.map(({ sent, description }) => [sent, description]));
}

/** What is answered for a message that is given in canonical ProtoJSON: the fields that are named. */
function answered(json: JsonValue, ...names: string[]): Record<string, unknown> {
  const bytes = toBinary(everything, fromJson(everything, json, { registry }));
  const all = JSON.parse(JSON.stringify(responses.message(type, bytes))) as Record<string, unknown>;
  return Object.fromEntries(names.map((name) => [name, all[name]]));
}

/** Numbers from 0 to 1 that are the same in each run. */
function numbers(seed: string): () => number {
  let count = 0;
  return () => createHash('md5').update(`${seed} ${count++}`).digest().readUInt32BE() / 2 ** 32;
}

function random(next: () => number, depth = 0): { [name: string]: JsonValue } {
  const int = (min: number, max: number) => Math.floor(min + next() * (max - min + 1));
  const pick = <const T extends unknown[]>(...values: T): T[number] => values[int(0, values.length - 1)] as T[number];
  const int32 = () => pick(0, 1, -1, 2 ** 31 - 1, -(2 ** 31), int(-1000, 1000));
  const uint32 = () => pick(0, 1, 2 ** 32 - 1, int(0, 1e6));
  const int64 = () => pick('0', '1', '-1', String(2n ** 63n - 1n), String(-(2n ** 63n)), String(int(-1e9, 1e9)));
  const uint64 = () => pick('0', String(2n ** 64n - 1n), String(int(0, 1e9)));
  const text = () => pick('', 'a', 'é€😀', 'a"\\\n\u0000', 'x'.repeat(int(0, 300)));
  const base64 = () => Buffer.from(text()).toString('base64');
  const double = () => pick(0, 0.1, -1.5e300, 5e-324, 'NaN', 'Infinity', '-Infinity', next());
  const float = () => Math.fround(pick(0.1, 3.4e38, -1.5, next()));
  const color = () => pick('COLOR_UNSPECIFIED', 'COLOR_RED', 'COLOR_DEEP_BLUE', 77);
  const time = () =>
    pick('1970-01-01T00:00:00Z', '0001-01-01T00:00:00Z', '9999-12-31T23:59:59.999999999Z', '2024-02-29T12:00:00.120Z');
  const length = () => pick('0s', '1.500s', '-0.000000001s', '315576000000s');
  const nested = (level: number): JsonValue => ({
    name: text(),
    count: int32(),
    ...(level > 0 && next() < 0.5 ? { inner: nested(level - 1) } : {}),
    tags: list(text),
  });
  const list = (item: () => JsonValue) => Array.from({ length: int(0, 3) }, item);
  const map = (key: () => string | number | boolean, item: () => JsonValue) =>
    Object.fromEntries(list(() => [String(key()), item()]) as [string, JsonValue][]);
  const value = (level: number): JsonValue =>
    pick<(() => JsonValue)[]>(
      () => null,
      text,
      () => next(),
      () => true,
      () => (level > 0 ? list(() => value(level - 1)) : 0),
      () => (level > 0 ? map(text, () => value(level - 1)) : 0),
    )();
  const makers: Record<string, () => JsonValue> = {
    text_value: text,
    bytes_value: base64,
    bool_value: () => pick(true, false),
    int32_value: int32,
    uint32_value: uint32,
    sint32_value: int32,
    fixed32_value: uint32,
    sfixed32_value: int32,
    int64_value: int64,
    uint64_value: uint64,
    sint64_value: int64,
    fixed64_value: uint64,
    sfixed64_value: int64,
    float_value: float,
    double_value: double,
    color,
    level: () => pick('LEVEL_NONE', 'LEVEL_SOME'),
    nested: () => nested(3),
    nickname: text,
    texts: () => list(text),
    numbers: () => list(int32),
    loose_numbers: () => list(int64),
    colors: () => list(color),
    children: () => list(() => nested(1)),
    labels: () => map(text, text),
    nested_by_id: () => map(int64, () => nested(1)),
    color_by_flag: () => map(() => next() < 0.5, color),
    by: () => 0,
    created_at: time,
    lasts: length,
    mask: () => pick('', 'a', 'aB.cD,e'),
    extra: () => map(text, () => value(2)),
    anything: () => value(2),
    items: () => list(() => value(2)),
    detail: () =>
      depth > 1
        ? {}
        : pick<(() => JsonValue)[]>(
            () => ({ '@type': 'type.googleapis.com/google.protobuf.Duration', value: length() }),
            () => ({ '@type': 'type.googleapis.com/transcoding.v1.Everything', ...random(next, depth + 1) }),
          )(),
    limit: int32,
    long_limit: int64,
    flag: () => pick(true, false),
    maybe_text: text,
    maybe_double: double,
    maybe_bytes: base64,
    times: () => list(time),
    renamed: text,
    nothing: () => ({}),
  };
  const json: { [name: string]: JsonValue } = {};
  for (const [name, make] of Object.entries(makers)) {
    // An unset one is answered as null, which as a request is a null that is set.
    if (next() < 0.5 && name !== 'anything') continue;
    if (name === 'by') {
      Object.assign(
        json,
        pick<(() => JsonValue)[]>(
          () => ({ by_name: text() }),
          () => ({ by_number: int64() }),
          () => ({ by_message: nested(1) }),
          () => ({ by_wrapper: text() }),
        )(),
      );
    } else {
      json[name] = make();
    }
  }
  return json;
}

test('requests: 500 made-up messages are read as protobuf-es reads them', (t) => {
  const next = numbers('requests');
  for (let count = 0; count < 500; count++) {
    const json = random(next);
    const expected = fromJson(everything, json, { registry });
    t.deepEqual(understood(json), toJson(everything, expected, { registry, useProtoFieldName: true }));
  }
});

test('responses: 500 made-up messages are read back as what they were', (t) => {
  const next = numbers('responses');
  for (let count = 0; count < 500; count++) {
    const message = fromJson(everything, random(next), { registry });
    const text = JSON.stringify(responses.message(type, toBinary(everything, message)));
    const { bytes, reading } = read(parseJson(Buffer.from(text)).value);
    // Of a list of enums null stands for the zero, which a request can't say that way.
    const surprising = reading.violations.filter(({ field }) => !/^(.*\.)?(colors|color_by_flag)\[/.test(field));
    t.deepEqual(surprising, []);
    t.deepEqual(
      toJson(everything, fromBinary(everything, bytes), { registry }),
      toJson(everything, message, { registry }),
    );
  }
});

test('responses: every field is there, and unset members of a oneof are not', (t) => {
  const json = JSON.parse(JSON.stringify(responses.message(type, new Uint8Array()))) as Record<string, unknown>;
  t.deepEqual(
    Object.keys(json).sort(),
    everything.fields
      .map((field) => field.name)
      .filter((name) => !name.startsWith('by_'))
      .sort(),
  );
  t.like(json, {
    text_value: '',
    bytes_value: '',
    bool_value: false,
    int32_value: 0,
    int64_value: 0,
    float_value: 0,
    color: null,
    level: 'none',
    nested: null,
    nickname: null,
    texts: [],
    labels: {},
    created_at: null,
    extra: null,
    anything: null,
    limit: null,
    maybe_text: null,
    renamed: '',
  });
});

test('responses: values have the forms of the contract', (t) => {
  t.deepEqual(answered({ color: 'COLOR_DEEP_BLUE', level: 'LEVEL_NONE' }, 'color', 'level'), {
    color: 'deep_blue',
    level: 'none',
  });
  t.deepEqual(answered({ colors: ['COLOR_RED', 'COLOR_UNSPECIFIED', 9] }, 'colors'), { colors: ['red', null, 9] });
  t.deepEqual(answered({ created_at: '2024-01-02T03:04:05.6+02:00' }, 'created_at'), {
    created_at: '2024-01-02T01:04:05.600Z',
  });
  t.deepEqual(answered({ by_name: '', nickname: '' }, 'by_name', 'nickname', 'by_number'), {
    by_name: '',
    nickname: '',
    by_number: undefined,
  });
  t.deepEqual(answered({ nested: { inner: {} } }, 'nested'), {
    nested: { name: '', count: 0, inner: { name: '', count: 0, inner: null, tags: [] }, tags: [] },
  });
  t.deepEqual(answered({ limit: 0, maybe_double: 'NaN' }, 'limit', 'maybe_double'), { limit: 0, maybe_double: 'NaN' });
  t.deepEqual(answered({ float_value: 0.1, double_value: 0.1 }, 'float_value', 'double_value'), {
    float_value: 0.1,
    double_value: 0.1,
  });
});

test('responses: 64-bit numbers are JSON numbers with all their digits', (t) => {
  const bytes = toBinary(everything, fromJson(everything, { int64_value: '-9223372036854775808', limit: 5 }));
  const text = JSON.stringify(responses.message(type, bytes));
  t.true(text.includes('"int64_value":-9223372036854775808,'));
  const big = toBinary(everything, fromJson(everything, { nested_by_id: { '9223372036854775807': {} } }));
  t.true(JSON.stringify(responses.message(type, big)).includes('"nested_by_id":{"9223372036854775807":{'));
});

test('responses: a message that comes in parts is one message, and of a oneof the last member counts', (t) => {
  const part = (json: JsonValue) => toBinary(everything, fromJson(everything, json));
  const bytes = Buffer.concat([
    part({ nested: { name: 'a', tags: ['x'] }, by_name: 'a' }),
    part({ nested: { count: 2, tags: ['y'] }, by_number: '3' }),
  ]);
  const json = responses.message(type, bytes) as Record<string, unknown>;
  t.deepEqual(json['nested'], { name: 'a', count: 2, inner: null, tags: ['x', 'y'] });
  t.false('by_name' in json);
  t.is(json['by_number'], 3);
});

test('responses: a map may have the key __proto__', (t) => {
  const bytes = toBinary(everything, fromJson(everything, JSON.parse('{"labels":{"__proto__":"a"}}') as JsonValue));
  t.true(JSON.stringify(responses.message(type, bytes)).includes('"labels":{"__proto__":"a"}'));
});

test('requests: names may be snake or camel, and unknown ones are ignored', (t) => {
  t.deepEqual(understood({ textValue: 'a', int32_value: 1, otherName: 'b', nope: { a: 1 }, TEXT_VALUE: 'c' }), {
    text_value: 'a',
    int32_value: 1,
    renamed: 'b',
  });
  t.deepEqual(understood(JSON.parse('{"__proto__": {"text_value": "a"}, "constructor": 1}')), {});
});

test('requests: null is an unset field, save for a value that may be null', (t) => {
  t.deepEqual(understood({ text_value: null, nested: null, texts: null, labels: null, limit: null, color: null }), {});
  t.deepEqual(understood({ anything: null }), { anything: null });
  t.deepEqual(understood({ by_name: null, by_number: 1 }), { by_number: '1' });
});

test('requests: enums are taken by short or full name in any case, or by number', (t) => {
  for (const color of ['deep_blue', 'DEEP_BLUE', 'Deep_Blue', 'COLOR_DEEP_BLUE', 'color_deep_blue', 2, '2']) {
    t.deepEqual(understood({ color }), { color: 'COLOR_DEEP_BLUE' }, String(color));
  }
  t.deepEqual(wrong({ color: 'green' }), { color: 'must be one of red, deep_blue' });
  t.deepEqual(wrong({ color: 1.5, level: {} }), {
    color: 'must be one of red, deep_blue',
    level: 'must be one of none, some',
  });
});

test('requests: a list takes a single value', (t) => {
  t.deepEqual(understood({ texts: 'a', colors: 'red', children: { name: 'b' } }), {
    texts: ['a'],
    colors: ['COLOR_RED'],
    children: [{ name: 'b' }],
  });
  t.deepEqual(wrong({ texts: 1, numbers: 'x', children: { count: 'y' } }), {
    texts: 'must be a string',
    numbers: 'must be a whole number',
    'children.count': 'must be a whole number',
  });
});

test('requests: numbers may be text, and 64 bits are exact either way', (t) => {
  t.deepEqual(understood({ int32_value: '5', double_value: '1e3', float_value: 2 }), {
    int32_value: 5,
    double_value: 1000,
    float_value: 2,
  });
  t.deepEqual(understood({ int32_value: 1e3, int64_value: '1e3', uint32_value: '4294967295' }), {
    int32_value: 1000,
    int64_value: '1000',
    uint32_value: 4294967295,
  });
  const long = parseJson(
    Buffer.from('{"int64_value": 9223372036854775807, "uint64_value": "18446744073709551615"}'),
  ).value;
  t.deepEqual(understood(long), { int64_value: '9223372036854775807', uint64_value: '18446744073709551615' });
});

test('requests: every wrong value is named at once, with the path that was sent', (t) => {
  t.deepEqual(
    wrong({
      textValue: 1,
      bytes_value: '***',
      bool_value: 'true',
      int32_value: 2147483648,
      uint32_value: -1,
      sint32_value: 1.5,
      int64_value: 1e19,
      uint64_value: '-1',
      float_value: 1e39,
      doubleValue: 'x',
      nested: { count: 'a', inner: { tags: ['a', 2, null] } },
      children: [{}, { name: [] }, 'x', null],
      labels: { a: 1, 'b"': null },
      nested_by_id: { x: {}, 1: { name: 2 } },
      color_by_flag: { true: 'red', maybe: 'red' },
      created_at: 'yesterday',
      lasts: '1m',
      mask: 5,
      extra: [],
      items: {},
      detail: { '@type': 'nope' },
      limit: 'x',
      times: ['2024-01-01T00:00:00Z', 5],
    }),
    {
      textValue: 'must be a string',
      bytes_value: 'must be base64 text',
      bool_value: 'must be true or false',
      int32_value: 'must be at most 2147483647',
      uint32_value: 'must be at least 0',
      sint32_value: 'must be a whole number',
      int64_value: 'must be at most 9223372036854775807',
      uint64_value: 'must be at least 0',
      float_value: 'must be a number from -3.4028234663852886e+38 to 3.4028234663852886e+38',
      doubleValue: 'must be a number',
      'nested.count': 'must be a whole number',
      'nested.inner.tags[1]': 'must be a string',
      'nested.inner.tags[2]': 'must not be null',
      'children[1].name': 'must be a string',
      'children[2]': 'must be an object',
      'children[3]': 'must not be null',
      'labels["a"]': 'must be a string',
      'labels["b\\""]': 'must not be null',
      'nested_by_id[x]': 'must have a key that fits: it must be a whole number',
      'nested_by_id[1].name': 'must be a string',
      'color_by_flag[maybe]': 'must have a key that fits: it must be true or false',
      created_at: 'must be an RFC 3339 time',
      lasts: 'must be a number of seconds such as 1.5s',
      mask: 'must be a string: names of fields with commas between them',
      extra: 'must be an object',
      items: 'must be a list',
      detail: 'must name a known type in @type',
      limit: 'must be a whole number',
      'times[1]': 'must be an RFC 3339 time',
    },
  );
});

test('requests: what is right beside something wrong is kept, each item at its place', (t) => {
  const { bytes, reading } = read({
    text_value: 5,
    int32_value: 7,
    texts: ['a', 1, 'c'],
    children: [1, { name: 'b' }],
  });
  t.is(reading.violations.length, 3);
  t.deepEqual(toJson(everything, fromBinary(everything, bytes), { useProtoFieldName: true }), {
    int32_value: 7,
    texts: ['a', '', 'c'],
    children: [{}, { name: 'b' }],
  });
});

test('requests: a field in two spellings is wrong, and so are two members of a oneof', (t) => {
  t.deepEqual(wrong({ textValue: 'a', text_value: 'b' }), { text_value: 'must be given once, not in two spellings' });
  t.deepEqual(wrong({ by_name: 'a', byNumber: 1 }), { byNumber: 'must not be given together with by_name' });
});

test('requests: text is well-formed Unicode', (t) => {
  t.deepEqual(wrong({ text_value: '\ud800', labels: { a: '\udc00', '\ud800': 'x' }, extra: { a: '\ud800' } }), {
    text_value: 'must be valid Unicode, without lone surrogates',
    'labels["a"]': 'must be valid Unicode, without lone surrogates',
    'labels["\\ud800"]': 'must have a key that fits: it must be valid Unicode, without lone surrogates',
    extra: 'must be valid Unicode and not nested too deeply',
  });
});

for (const time of [
  '2024-02-30T00:00:00Z',
  '2023-02-29T00:00:00Z',
  '2024-01-01T24:00:00Z',
  '2024-01-01T00:00:60Z',
  '2024-01-01',
  '2024-01-01T00:00:00',
  '2024-01-01T00:00:00.Z',
  '2024-01-01T00:00:00.1234567890Z',
  '2024-13-01T00:00:00Z',
  '0000-01-01T00:00:00Z',
  '0001-01-01T00:00:00+01:00',
  '9999-12-31T23:59:59-00:01',
  '2024-01-01T00:00:00+24:00',
  '2024-01-01T00:00:00+00:60',
  '2024-01-01 00:00:00Z',
  '1704067200',
]) {
  test(`requests: ${time} is no time`, (t) => {
    t.deepEqual(wrong({ created_at: time }), { created_at: 'must be an RFC 3339 time' });
  });
}

test('requests: JSON that is nested too deeply is wrong, where it means something', (t) => {
  let nested: unknown = {};
  for (let level = 0; level < 200; level++) nested = { inner: nested };
  t.deepEqual(Object.values(wrong({ nested })), ['must not be nested so deeply']);
  t.deepEqual(wrong({ extra: { a: nested }, unknown: nested }), {
    extra: 'must be valid Unicode and not nested too deeply',
  });
});

test('spellings: a path in proto names becomes the path that the client wrote', (t) => {
  const { reading } = read({
    textValue: 'a',
    texts: 'b',
    nested: { inner: { tags: 'c' } },
    nestedById: { 5: {} },
    children: { inner: {} },
    byMessage: {},
  });
  const paths: [string, string][] = [
    ['text_value', 'textValue'],
    ['texts[0]', 'texts'],
    ['texts', 'texts'],
    ['nested.inner.tags[0]', 'nested.inner.tags'],
    ['nested_by_id[5].name', 'nestedById[5].name'],
    ['children[0].inner.name', 'children.inner.name'],
    ['by_message.inner.tags[3]', 'byMessage.inner.tags[3]'],
    ['int32_value', 'int32_value'],
    ['', ''],
  ];
  for (const [field, sent] of paths) t.is(reading.asSent(field), sent);
});

test('a time before 1970 whose fraction is less than nothing is answered as the time that is meant', (t) => {
  const time = wellKnownTypes.get('google.protobuf.Timestamp')!;
  const written = new BinaryWriter().tag(1, WireType.Varint).int64(-1n).tag(2, WireType.Varint).int32(-66_000_000);
  t.is(time.toJson(written.finish()), '1969-12-31T23:59:58.934Z');
});
