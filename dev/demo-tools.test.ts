import test from 'ava';
import { opened } from '../test/opened.ts';
import { startDemoTools } from './demo-tools.ts';

const tools = opened(startDemoTools, (tools) => tools.stop());

async function post(path: string, body: string): Promise<[number, unknown]> {
  const response = await fetch(`${tools.url}${path}`, { method: 'POST', body });
  return [response.status, await response.json()];
}

test('echo answers with what it was sent', async (t) => {
  t.deepEqual(await post('/echo', '{"a": [1, null]}'), [200, { echo: { a: [1, null] } }]);
});

test('text-stats counts as people do', async (t) => {
  const text = 'Grüße, 👩‍👩‍👧!\nZwei Zeilen.';
  t.deepEqual(await post('/text-stats', JSON.stringify({ text })), [200, { characters: 22, words: 3, lines: 2 }]);
  t.deepEqual(await post('/text-stats', '{}'), [200, { characters: 0, words: 0, lines: 0 }]);
});

test('what is no object is refused, and so is what nobody answers', async (t) => {
  for (const body of ['[1]', '{', '', '"text"', JSON.stringify({ text: 'x'.repeat(2_000_000) })]) {
    t.is((await post('/echo', body))[0], 400, body.slice(0, 20));
  }
  t.is((await post('/other', '{}'))[0], 404);
  const response = await fetch(`${tools.url}/echo`);
  t.is(response.status, 405);
  await response.text();
});
