import { PassThrough } from 'node:stream';
import test from 'ava';
import { withContext } from './context.ts';
import { openLog } from './log.ts';

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
    const text = written(format, (log) => {
      log.info({ password: 'geheim', token: 'geheim', request: { authorization: 'Bearer geheim' } }, 'login');
    });
    t.regex(text, /login/);
    t.notRegex(text, /geheim/);
  });
}

test('json: a line is one JSON object, whatever is in it', (t) => {
  const text = written('json', (log) => log.info({ note: 'two\nlines' }, 'a "quoted" line'));
  t.like(JSON.parse(text), { name: 'test', msg: 'a "quoted" line', note: 'two\nlines' });
});
