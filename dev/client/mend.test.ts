import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import type { JsonValue } from '@bufbuild/protobuf';
import test from 'ava';
import { encode, registry } from '../../test/echo-backend.ts';
import { fixture } from '../../test/echo-gateway.ts';
import { openedFolder } from '../../test/opened.ts';
import { testProtos } from '../generate.ts';
import { generateClient } from './generate.ts';
import { installPlugin, pluginAvailable, pluginNeeds, runPlugin } from './plugin.ts';

/** The client of the services in test/protos, as the generator makes it, and mended. */

const root = path.resolve(import.meta.dirname, '../..');
const file = 'transcoding/v1/transcoding.pb.ts';
const enveloped = 'transcoding/v1/envelope.pb.ts';
const talk = 'transcoding/v1/talk.pb.ts';
const files = [file, 'transcoding/v1/raw.pb.ts', enveloped, talk];
if (!pluginAvailable() && process.env.CI === 'true') throw new Error(`The client's generator needs ${pluginNeeds}`);
const whereGoIs = pluginAvailable() ? test : test.skip;

const folder = openedFolder('chat4all-mend-');
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
  await generateClient(folder, registry, testProtos, path.relative(folder, path.join(root, 'client/fetch.ts')));
  mended = await textIn(folder);
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
});

type Call = (request: object, init: object) => Promise<Record<string, unknown>>;

/** Each defect by a text that shows it, and by one that shows it mended. */
const defects: [defect: string, shown: RegExp, mended: RegExp][] = [
  ['the checker is off', /@ts-nocheck/, /^(?![^]*@ts-nocheck)/],
  [
    'enums',
    /export enum Color \{/,
    /export const Color = \{\n {2}COLOR_RED: 'red',\n {2}COLOR_DEEP_BLUE: 'deep_blue',\n\} as const/,
  ],
  ['imports without extensions', /from "\.\.\/\.\.\/fetch\.pb"/, /import \* as fm from '[./\w-]+\/client\/fetch\.ts';/],
  ['well-known types', /created_at\?: GoogleProtobufTimestamp\.Timestamp/, /created_at\?: string \| null;/],
  ['wrappers', /limit\?: GoogleProtobufWrappers\.Int32Value/, /limit\?: number \| null;/],
  ['64 bits', /int64_value\?: string/, /int64_value\?: number;/],
  ['64 bits in an answer', /size\?: string/, /size: number;/],
  ['optional', /& OneOf<\{ nickname: string \}>/, /nickname\?: string \| null;/],
  ['paths', /`\/v1\/things\/\$\{req\["text_value"\]\}`/, /`\/v1\/things\/\$\{fm\.pathValue\(req, 'text_value'\)\}/],
  [
    'patterns',
    /req\["text_value=shelves\/\*\/books\/\*"\]/,
    /fm\.pathValue\(req, 'text_value', 'shelves\/\*\/books\/\*'\)/,
  ],
  [
    'queries beside a body',
    /`\/v1\/nested\/\$\{req\["text_value"\]\}`/,
    /\$\{fm\.query\(req, \['text_value', 'nested'\], \[/,
  ],
  ['a body that is not set', /JSON\.stringify\(req\["texts"\], fm/, /JSON\.stringify\(req\.texts \?\? \[\], fm/],
  ['response_body', /static Update\(.*Promise<Everything>/, /static Update\(.*Promise<fm\.Answered<Nested> \| null>/],
  [
    'envelopes',
    /static Browse\(.*Promise<Shelf>/,
    /static Browse\(.*Promise<fm\.Page<\w+\.Nested\[\], \w+\.Pagination>>/,
  ],
  ['RPCs without an HTTP rule', /static Hidden\(/, /^(?![^]*Hidden)/],
  ['bodies that are bytes', /static Send\(/, /^(?![^]*static Send\()/],
  ['whole HTTP requests', /static Handle\(/, /^(?![^]*(static Handle\(|WholeService|ChatAllHttp|http\.pb))/i],
  [
    'events that are asked for',
    /static Talk\(req: TalkRequest, entityNotifier/,
    /static Talk\(req: TalkRequest, initReq\?: fm\.InitReq\): Promise<Words> \{[^]*?\.\.\.req, stream: false[^]*?static TalkEvents\(req: TalkRequest, initReq\?: fm\.InitReq\): AsyncGenerator<TalkResponse, void>/,
  ],
  ['who asks for events', /stream\?: boolean$/m, /^(?![^]*stream\?: boolean)/],
  [
    'events that always come',
    /static Listen\(req: ListenRequest, entityNotifier/,
    /static Listen\(req: ListenRequest, initReq\?: fm\.InitReq\): AsyncGenerator<TalkResponse, void>/,
  ],
  [
    'what an event is',
    /type BaseTalkResponse = \{/,
    /export type TalkResponse = fm\.EventOf<number, \{\n(?: {2}.*\n)*? {2}word: Word;\n(?: {2}.*\n)*? {2}whole: Words;\n\}>;/,
  ],
  [
    'joined arrays',
    /static ListWords\(.*entityNotifier/,
    /static ListWords\(.*Promise<Word\[\]> \{\n {4}return fm\.fetchReq</,
  ],
  ['how long a call may take', /^(?![^]*timeout:)/, /static Talk\(.*\n.*\{ timeout: 65000, \.\.\.initReq, /],
];
for (const [defect, shown, right] of defects) {
  whereGoIs(`mend: ${defect}`, (t) => {
    t.regex(written, shown);
    t.regex(mended, right);
  });
}

whereGoIs('mend: what was mended passes the type checker, without Node', async (t) => {
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

whereGoIs('mend: requests reach the RPC with all that they hold, wherever it travels', async (t) => {
  const { gateway, backend } = await fixture(t);
  const init = { pathPrefix: `http://127.0.0.1:${gateway.port}` };
  const { EchoService } = (await import(path.join(folder, file))) as { EchoService: Record<string, Call> };
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
  t.like(await EchoService.Create!(everything, init), answered);
  t.like(await EchoService.Search!(everything, init), answered);

  t.like(await EchoService.Get!({ text_value: 'a/b?c #%', limit: 3 }, init), { text_value: 'a/b?c #%', limit: 3 });
  const book = { text_value: 'shelves/1 2/books/ä', int32_value: 4 };
  t.like(await EchoService.Find!(book, init), book);
  t.like(await EchoService.Typed!({ int32_value: 5, bool_value: true }, init), { int32_value: 5, bool_value: true });
  for (const text_value of [undefined, '', '..', '.']) {
    await t.throwsAsync(async () => EchoService.Get!({ text_value }, init), { instanceOf: TypeError });
  }

  const update = { text_value: 'one', limit: 6, nested: { name: 'body' } };
  t.like(await EchoService.Update!(update, init), { name: 'body' });
  t.is(backend.calls.at(-1)!.method, 'Update');
  t.deepEqual(await EchoService.Replace!({ texts: ['p', 'q'] }, init), ['p', 'q'] as never);
  t.deepEqual(await EchoService.Replace!({}, init), [] as never);
  t.deepEqual(await EchoService.Delete!({ text_value: 'gone', limit: 8 }, init), {});
});

whereGoIs('mend: an envelope is taken off, its page is beside the list, and its refusal is an Error', async (t) => {
  const { gateway } = await fixture(t);
  const init = { pathPrefix: `http://127.0.0.1:${gateway.port}` };
  const { ShelfService } = (await import(path.join(folder, enveloped))) as { ShelfService: Record<string, Call> };
  const put = await ShelfService.Put!({ text_value: 'a', nested: { name: 'n' } }, init);
  t.like(put, { text_value: 'a', nested: { name: 'n', count: 0 } });
  t.false('nickname' in put);
  const page = await ShelfService.Browse!({ name: 's', pagination: { offset: 0, limit: 20, total: 7 } }, init);
  t.deepEqual([page, page['pagination']] as unknown[], [[], { offset: 0, limit: 20, total: 7 }]);
  t.deepEqual(await ShelfService.Drop!({ text_value: 'gone' }, init), {});
  const refused = await t.throwsAsync(ShelfService.Put!({ int32_value: 'x' }, init), { name: 'RefusedError' });
  t.like(refused, { status: 400, code: 'VALIDATION_ERROR', details: [{ field: 'int32_value', rule: 'type' }] });
});

whereGoIs('mend: events are called for at once or one by one, and joined arrays are one', async (t) => {
  const { gateway, backend } = await fixture(t);
  const init = { pathPrefix: `http://127.0.0.1:${gateway.port}` };
  type Calls = Record<'Talk' | 'ListWords', Call> &
    Record<'TalkEvents' | 'Listen', (request: object, init: object) => AsyncGenerator<unknown, void>>;
  const { TalkService } = (await import(path.join(folder, talk))) as { TalkService: Calls };
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
  t.deepEqual(await TalkService.Talk({ user_id: '1', key: 'k', stream: true }, init), { words });
  t.deepEqual([lastRequest().stream ?? false, lastRequest().key], [false, 'k']);
  t.deepEqual(await Readable.from(TalkService.TalkEvents({ user_id: '1' }, init)).toArray(), events);
  t.is(lastRequest().stream, true);
  t.deepEqual(await Readable.from(TalkService.Listen({ user_id: '1', last_event_id: 7 }, init)).toArray(), events);
  t.is(lastRequest().lastEventId, '7');
  const listed = (...texts: string[]) =>
    encode(registry.getMessage('transcoding.v1.Words')!, { words: texts.map((text) => ({ text })) });
  backend.sender = (call) => {
    for (const message of [listed('a', 'b'), listed(), listed('c')]) call.write(message);
    call.end();
  };
  t.deepEqual(
    await TalkService.ListWords({ user_id: '1' }, init),
    ['a', 'b', 'c'].map((text) => ({ text, note: null })) as never,
  );
});
