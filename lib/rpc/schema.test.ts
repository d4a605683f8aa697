import { create, getOption, toBinary, type DescExtension, type DescField } from '@bufbuild/protobuf';
import test from 'ava';
import { registry, validate } from './schema.ts';

const rules = registry.getExtension('buf.validate.field') as DescExtension;
const words = registry.getExtension('chat4all.options.v1.pattern_text') as DescExtension;

interface Typed {
  type?: { case?: string; value?: { pattern?: string; items?: Typed } };
}

function patternOf(field: DescField): string | undefined {
  const { type } = getOption(field, rules) as unknown as Typed;
  const of = type?.case === 'repeated' ? type.value?.items?.type : type;
  return of?.case === 'string' ? of.value?.pattern || undefined : undefined;
}

const fields = [...registry]
  .filter((type) => type.kind === 'message')
  .filter(({ typeName }) => typeName.startsWith('chat4all.'))
  .flatMap((message) => message.fields);

test('validate: where a text has to match a pattern, the proto says in words what that is, and people are told so', (t) => {
  const withPattern = fields.filter((field) => patternOf(field) !== undefined);
  t.true(withPattern.length > 10);
  const silent = withPattern.filter((field) => getOption(field, words) === '');
  t.deepEqual(silent.map(String), []);
  const needless = fields.filter((field) => getOption(field, words) !== '' && patternOf(field) === undefined);
  t.deepEqual(needless.map(String), []);
});

const initiate = registry.getMessage('chat4all.file.v1.InitiateUploadRequest')!;
const found = (filename: string) =>
  validate(initiate, toBinary(initiate, create(initiate, { filename, fileSize: 1n } as never)));

test('validate: names have no control characters, C1 neither', (t) => {
  const wrong = { field: 'filename', description: 'must not have control characters', rule: 'pattern' };
  for (const code of [0x00, 0x07, 0x0a, 0x1f, 0x7f, 0x80, 0x85, 0x9f]) {
    t.deepEqual(found(`a${String.fromCharCode(code)}b`), [wrong], code.toString(16));
  }
  for (const name of ['a b', 'é', '\u00a0', '\u{1f680}', '名前.txt', '\u200d']) t.deepEqual(found(name), [], name);
});

test('validate: every name of a request is without control characters', (t) => {
  const requests = new Set(
    [...registry]
      .filter((type) => type.kind === 'service')
      .filter(({ typeName }) => typeName.startsWith('chat4all.'))
      .flatMap((service) => service.methods.map(({ input }) => input.typeName)),
  );
  requests.add('chat4all.conversation.v1.ConversationMetadata');
  const names = fields.filter(
    ({ name, parent }) => ['name', 'filename'].includes(name) && requests.has(parent.typeName),
  );
  t.true(names.length >= 6);
  t.deepEqual(names.filter((field) => getOption(field, words) !== 'must not have control characters').map(String), []);
});

test('validate: a time is one of the years 1 to 9999', (t) => {
  const message = registry.getMessage('chat4all.account.v1.CreateApiKeyRequest')!;
  const wrong = (seconds: bigint, nanos = 0) =>
    validate(message, toBinary(message, create(message, { name: 'a', expiresAt: { seconds, nanos } } as never))).map(
      ({ field, rule }) => `${field} ${rule}`,
    );
  t.deepEqual(wrong(253_402_300_799n), []);
  for (const seconds of [253_402_300_800n, 2n ** 62n]) t.deepEqual(wrong(seconds), ['expires_at range']);
  for (const nanos of [-1, 1_000_000_000]) t.deepEqual(wrong(253_402_300_799n, nanos), ['expires_at range']);
});
