import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import type { JsonValue } from '@bufbuild/protobuf';
import test from 'ava';
import { encode, registry } from '../../test/echo-backend.ts';
import { fixture } from '../../test/echo-gateway.ts';
import { openedFolder } from '../../test/opened.ts';
import { Caller } from '../../client/caller.ts';
import { testProtos } from '../generate.ts';
import { generateClient } from './generate.ts';
import { installPlugin, pluginAvailable, pluginNeeds, runPlugin } from './plugin.ts';

/** The client of the services in test/protos: what the plugin writes, and what is made of it. */

const root = path.resolve(import.meta.dirname, '../..');
const files = ['transcoding', 'raw', 'envelope', 'talk'].map((name) => `transcoding/v1/${name}.pb.ts`);
if (!pluginAvailable() && process.env.CI === 'true') throw new Error(`The client's generator needs ${pluginNeeds}`);
const whereGoIs = pluginAvailable() ? test : test.skip;

const folder = openedFolder('chat4all-generate-');
let written = '';
let mended = '';
test.serial.before(async (t) => {
  // It may have to be built.
  t.timeout(300_000);
  const made = runPlugin(await installPlugin(), testProtos);
  const textIn = async (parent: string) =>
    (await Promise.all(files.map((name) => readFile(path.join(parent, name), 'utf8')))).join('\n');
  written = await textIn(made.folder);
  made.remove();
  await generateClient(folder, registry, testProtos, path.relative(folder, path.join(root, 'client')));
  mended = await textIn(folder);
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
});

type Call = (request: object, options?: object) => Promise<Record<string, unknown>>;

/** Each defect of the plugin's types by a text that shows it, and by one that shows it mended. */
const defects: [defect: string, shown: RegExp, mended: RegExp][] = [
  ['the checker is off', /@ts-nocheck/, /^(?![^]*@ts-nocheck)/],
  [
    'enums',
    /export enum Color \{/,
    /export const Color = \{\n {2}COLOR_RED: 'red',\n {2}COLOR_DEEP_BLUE: 'deep_blue',\n\} as const/,
  ],
  [
    'imports without extensions',
    /from "\.\.\/\.\.\/fetch\.pb"/,
    /import type \* as wire from '[./\w-]+\/client\/wire\.ts';/,
  ],
  ['well-known types', /created_at\?: GoogleProtobufTimestamp\.Timestamp/, /created_at\?: string \| null;/],
  ['wrappers', /limit\?: GoogleProtobufWrappers\.Int32Value/, /limit\?: number \| null;/],
  ['64 bits', /int64_value\?: string/, /int64_value\?: number;/],
  ['64 bits in an answer', /size\?: string/, /size: number;/],
  ['optional', /& OneOf<\{ nickname: string \}>/, /nickname\?: string \| null;/],
  [
    'oneofs',
    /by_name: string; by_number: string/,
    /wire\.OneOf<\{\n(?: {2}.*\n)*? {2}by_name: string;\n(?: {2}.*\n)*? {2}by_number: number;/,
  ],
  ['what is a part of a path', /user_id\?: string/, /user_id: string;/],
  ['who asks for events', /stream\?: boolean$/m, /^(?![^]*stream\?: boolean)/],
  [
    'what an event is',
    /type BaseTalkResponse = \{/,
    /export type TalkResponse = wire\.EventOf<number, \{\n(?: {2}.*\n)*? {2}word: Word;\n(?: {2}.*\n)*? {2}whole: Words;\n\}>;/,
  ],
];
for (const [defect, shown, right] of defects) {
  whereGoIs(`generate: ${defect}`, (t) => {
    t.regex(written, shown);
    t.regex(mended, right);
  });
}

/** What the methods look like, by what there is to them. */
const methods: [what: string, shown: RegExp][] = [
  ['response_body', / update\(.*Reply<wire\.Answered<Nested> \| null, UpdateCode>/],
  ['envelopes', / browse\(.*Reply<wire\.Page<\w+\.Nested\[\], \w+\.Pagination>, BrowseCode> \{\n.*isEnveloped: true/],
  ['RPCs of the same name in one file', /^(?=[^]*export type (\w+)ReceiveCode)(?![^]*type ReceiveCode)/],
  ['RPCs without an HTTP rule', /^(?![^]*hidden\()/],
  ['bodies that are bytes', /^(?![^]* send\()/],
  ['whole HTTP requests', /^(?![^]*( handle\(|WholeService|ChatAllHttp|http\.pb))/i],
  [
    'events that are asked for',
    / talk\(.*Reply<Words, TalkCode> \{\n.*set: \{ stream: false \}[^]*? talkEvents\(.*AsyncGenerator<TalkResponse, void> \{\n.*set: \{ stream: true \}/,
  ],
  ['events that always come', / listen\(.*AsyncGenerator<TalkResponse, void> \{\n.*caller\.events</],
  ['joined arrays', / listWords\(.*Reply<Word\[\], ListWordsCode> \{\n.*caller\.reply</],
  ['how long a call may take', / talk\(.*\n.*timeout: 65000 \}/],
  ['what may be repeated', / search\(.*\n.*isRepeatable: true/],
  ['what anybody may call', / create\(.*\n.*isPublic: true/],
  ['codes', /export type TalkCode = 'SPEAKER_ERROR' \| codes\.CommonCode;/],
];
for (const [what, shown] of methods) {
  whereGoIs(`generate: ${what}`, (t) => t.regex(mended, shown));
}

whereGoIs('generate: what was made passes the type checker, without Node', async (t) => {
  t.timeout(120_000);
  const options = { noEmit: true, types: [], lib: ['es2024', 'dom', 'dom.iterable'] };
  const config = { extends: path.join(root, 'tsconfig.json'), compilerOptions: options, include: ['.'] };
  await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
  const output = await new Promise((resolve) => {
    const tsc = path.join(root, 'node_modules/.bin/tsc');
    execFile(tsc, ['-p', folder], { timeout: 100_000 }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
  t.is(output, '');
});

/** A client of all services, of a gateway at this port. */
async function clientOf(port: number): Promise<Record<'echo' | 'shelf' | 'talk', Record<string, Call>>> {
  const { Services } = (await import(path.join(folder, 'services.ts'))) as {
    Services: new (caller: Caller) => Record<'echo' | 'shelf' | 'talk', Record<string, Call>>;
  };
  return new Services(new Caller({ baseUrl: `http://127.0.0.1:${port}` }));
}

whereGoIs('generate: requests reach the RPC with all that they hold, wherever it travels', async (t) => {
  const { gateway, backend } = await fixture(t);
  const { echo } = await clientOf(gateway.port);
  const everything = {
    int64_value: 0,
    color: 'deep_blue',
    nested: { name: 'ö&=?', inner: { count: 0, tags: ['a', 'b c'] } },
    texts: ['x', 'y/z'],
    labels: { 'a.b': 'c d' },
    nested_by_id: { 7: { name: 'seven' } },
    created_at: '2026-11-25T12:00:00Z',
    limit: 0,
    nickname: '',
    bytes_value: new Uint8Array([0, 255, 62]),
  };
  const answered = {
    color: 'deep_blue',
    nested: { name: 'ö&=?', count: 0, inner: { name: '', count: 0, inner: null, tags: ['a', 'b c'] }, tags: [] },
    texts: ['x', 'y/z'],
    labels: { 'a.b': 'c d' },
    limit: 0,
    nickname: '',
    bytes_value: 'AP8+',
  };
  t.like(await echo.create!(everything), answered);
  t.like(await echo.search!(everything), answered);

  t.like(await echo.get!({ text_value: 'a/b?c #%', limit: 3 }), { text_value: 'a/b?c #%', limit: 3 });
  const book = { text_value: 'shelves/1 2/books/ä', int32_value: 4 };
  t.like(await echo.find!(book), book);
  t.like(await echo.typed!({ int32_value: 5, bool_value: true }), { int32_value: 5, bool_value: true });
  for (const text_value of [undefined, '', '..', '.']) {
    await t.throwsAsync(async () => echo.get!({ text_value }), { instanceOf: TypeError });
  }

  const update = { text_value: 'one', limit: 6, nested: { name: 'body' } };
  t.like(await echo.update!(update), { name: 'body' });
  t.is(backend.calls.at(-1)!.method, 'Update');
  t.deepEqual(await echo.replace!({ texts: ['p', 'q'] }), ['p', 'q'] as never);
  t.deepEqual(await echo.replace!({}), [] as never);
  t.deepEqual(await echo.delete!({ text_value: 'gone', limit: 8 }), {});
});

whereGoIs('generate: an envelope is taken off, its page is beside the list, and its refusal is an Error', async (t) => {
  const { gateway } = await fixture(t);
  const { shelf } = await clientOf(gateway.port);
  const put = await shelf.put!({ text_value: 'a', nested: { name: 'n' } });
  t.like(put, { text_value: 'a', nested: { name: 'n', count: 0 } });
  t.false('nickname' in put);
  const page = await shelf.browse!({ name: 's', pagination: { offset: 0, limit: 20, total: 7 } });
  t.deepEqual([page, page['pagination']] as unknown[], [[], { offset: 0, limit: 20, total: 7 }]);
  t.deepEqual(await shelf.drop!({ text_value: 'gone' }), {});
  const refused = await t.throwsAsync(shelf.put!({ int32_value: 'x' }), { name: 'RefusedError' });
  t.like(refused, { status: 400, code: 'VALIDATION_ERROR', details: [{ field: 'int32_value', rule: 'type' }] });
});

whereGoIs('generate: events are called for at once or one by one, and joined arrays are one', async (t) => {
  const { gateway, backend } = await fixture(t);
  const { talk } = (await clientOf(gateway.port)) as unknown as {
    talk: Record<'talk' | 'listWords', Call> &
      Record<'talkEvents' | 'listen', (request: object) => AsyncGenerator<unknown, void>>;
  };
  const response = (json: JsonValue) => encode(registry.getMessage('transcoding.v1.TalkResponse')!, json);
  const words = [{ text: 'hello', note: null }];
  backend.sender = (call) => {
    call.write(response({ id: '1', word: { text: 'hello' } }));
    call.write(response({ id: '2', whole: { words: [{ text: 'hello' }] } }));
    call.end();
  };
  const lastRequest = () => backend.calls.at(-1)!.request as { stream?: boolean; key?: string; lastEventId?: string };
  const events = [
    { type: 'word', id: 1, data: words[0] },
    { type: 'whole', id: 2, data: { words } },
  ];
  // Whatever the request says: the function says whether it is a stream.
  t.deepEqual(await talk.talk({ user_id: '1', key: 'k', stream: true }), { words });
  t.deepEqual([lastRequest().stream ?? false, lastRequest().key], [false, 'k']);
  t.deepEqual(await Readable.from(talk.talkEvents({ user_id: '1' })).toArray(), events);
  t.is(lastRequest().stream, true);
  t.deepEqual(await Readable.from(talk.listen({ user_id: '1', last_event_id: 7 })).toArray(), events);
  t.is(lastRequest().lastEventId, '7');
  const listed = (...texts: string[]) =>
    encode(registry.getMessage('transcoding.v1.Words')!, { words: texts.map((text) => ({ text })) });
  backend.sender = (call) => {
    for (const message of [listed('a', 'b'), listed(), listed('c')]) call.write(message);
    call.end();
  };
  t.deepEqual(await talk.listWords({ user_id: '1' }), ['a', 'b', 'c'].map((text) => ({ text, note: null })) as never);
});
