import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { text as allOf } from 'node:stream/consumers';
import test from 'ava';
import { withContext } from './context.ts';
import { openLog } from './log.ts';

/** Runs a script that has a `log`, with its output going into a pipe. */
function logging(script: string) {
  const file = path.resolve(import.meta.dirname, 'log.ts');
  const opening = `const { openLog, written } = await import(${JSON.stringify(file)}); const log = openLog({ name: 'test', level: 'info' });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', `${opening}\n${script}`], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  child.stdout.setEncoding('utf8');
  return child;
}

function written(format: 'text' | 'json', write: (log: ReturnType<typeof openLog>) => void): string {
  const destination = new PassThrough({ encoding: 'utf8' });
  write(openLog({ name: 'test', format, level: 'info', destination }));
  return (destination.read() as string | null) ?? '';
}

for (const format of ['text', 'json'] as const) {
  test(`${format}: each line carries the request and the message that it is about`, (t) => {
    const text = written(format, (log) => {
      withContext({ requestId: 'r-1', messageId: 'm-1' }, () => log.info('Olá, 世界'));
    });
    t.regex(text, /Olá, 世界/);
    t.regex(text, /"request_id":"r-1"/);
    t.regex(text, /"message_id":"m-1"/);
    t.is(text.trimEnd().split('\n').length, 1);
  });

  test(`${format}: secrets are hidden wherever they usually are`, (t) => {
    for (const name of ['password', 'token', 'access_token', 'authorization', 'secretKey']) {
      for (const detail of [{ [name]: 'geheim' }, { request: { [name]: 'geheim' } }]) {
        const text = written(format, (log) => log.info(detail, 'login'));
        t.regex(text, /login/);
        t.true(text.includes(name), text);
        t.notRegex(text, /geheim/);
      }
    }
  });
}

const token = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLXNpZ25hdHVyZQ';
const hash = `$2b$12$${'aB3./'.repeat(10)}xyz`;
const hidden = [
  [`token ${token} refused`, token],
  [`{"authorization":"Bearer ${token}"}`, token],
  ...['c4a_', 'c4r_', 'c4p_'].map((prefix) => {
    const opaque = `${prefix}${'aB3-_'.repeat(prefix === 'c4p_' ? 5 : 8)}xyz`;
    return [`POST /api/v1/auth/password-reset/${opaque}?x=1`, opaque] as const;
  }),
  [`insert into users values ('user1', '${hash}') - duplicate key`, hash],
  ['no answer from postgres://chat4all_auth:S3cr%40t@db:5432/hub', 'S3cr%40t'],
  ['PUT http://minio:9000/b/k?partNumber=1&X-Amz-Credential=AKIDX%2F2026&X-Amz-Signature=deadbeef99', 'deadbeef99'],
  ['PUT http://minio:9000/b/k?partNumber=1&X-Amz-Credential=AKIDX%2F2026&X-Amz-Signature=deadbeef99', 'AKIDX'],
  ['PUT http://minio:9000/b/k?X-Amz-Security-Token=dGVtcG9yYXJ5&partNumber=1', 'dGVtcG9yYXJ5'],
  ['/v1/files/upload?file_id=1&signature=c2VjcmV0LXNpZ25hdHVyZQ&expires=1', 'c2VjcmV0LXNpZ25hdHVyZQ'],
  ['AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0123456789abcdef', '0123456789abcdef'],
  [`{"crv":"Ed25519","d":"${'k'.repeat(43)}","x":"public"}`, 'k'.repeat(43)],
] as const;

for (const format of ['text', 'json'] as const) {
  test(`${format}: what looks like a secret is hidden, in texts and in errors too`, (t) => {
    for (const [told, secret] of hidden) {
      const text = written(format, (log) => {
        log.warn(told);
        log.error({ err: new Error(told, { cause: new Error(told) }), detail: { deep: { inside: told } } }, 'failed');
      });
      t.false(text.includes(secret), text);
      t.regex(text, /\[hidden\]/);
      t.regex(text, /failed/);
    }
  });
}

test('what is no secret stays as it is', (t) => {
  const plain = [
    'http://localhost:8000/ready',
    'dns:///auth:50051',
    'user@example.test',
    'key=value',
    'a:b@c',
    '{"d":"x"}',
  ];
  for (const text of plain)
    t.true(written('json', (log) => log.info({ text }, 'plain')).includes(JSON.stringify(text)));
});

test('text: a message stays on its line, and tells the terminal nothing', (t) => {
  const text = written('text', (log) => log.info('one\nINFO: two\r\u001b[2Jthree\u2028four'));
  t.is(text.trimEnd().split(/[\n\r\u2028]/).length, 1);
  t.false(text.includes('\u001b[2J'));
  t.true(text.includes('one\\nINFO: two'));
});

test('json: a line is one JSON object, whatever is in it', (t) => {
  const text = written('json', (log) => log.info({ note: 'two\nlines' }, 'a "quoted" line'));
  t.like(JSON.parse(text), { name: 'test', msg: 'a "quoted" line', note: 'two\nlines' });
});

test('json: secrets of errors that have them as properties are hidden, and the rest of the error is told', (t) => {
  const text = written('json', (log) => log.error({ err: Object.assign(new Error('away'), { token: 'geheim' }) }));
  t.notRegex(text, /geheim/);
  t.like(JSON.parse(text), { err: { type: 'Error', message: 'away', token: '[hidden]' } });
});

test('beyond a terminal lines are JSON; a single one is not kept back', async (t) => {
  // It lives until its input ends.
  const child = logging(`log.info('only one'); process.stdin.resume();`);
  const [line] = (await once(child.stdout, 'data')) as [string];
  t.like(JSON.parse(line), { name: 'test', msg: 'only one' });
  child.stdin.end();
  await once(child, 'exit');
});

for (const [end, script] of Object.entries({
  'process.exit': `process.exit(3);`,
  'an error that nothing catches': `setTimeout(() => { throw new Error('x'); });`,
  'nothing left to do': ``,
  'process.exit after a fatal line': `log.fatal('line 1000'); process.exit(1);`,
  'a kill after `written`': `await written(log); process.kill(process.pid, 'SIGKILL');`,
})) {
  test(`no line is lost when a process ends: ${end}`, async (t) => {
    const child = logging(`for (let n = 0; n < 1000; n += 1) log.info('line ' + n);\n${script}`);
    const lines = (await allOf(child.stdout)).trimEnd().split('\n');
    const told = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    t.deepEqual(
      told.slice(0, 1000),
      Array.from({ length: 1000 }, (_, n) => `line ${n}`),
    );
    t.is(told.length, script.includes('fatal') ? 1001 : 1000);
  });
}
