import test from 'ava';
import { problemsOf } from './documents.ts';

/** The problems of some documents, where those are the only files. */
function problems(documents: Record<string, string>): string[] {
  return problemsOf(new Map(Object.entries(documents)), (file) => file in documents);
}

test('problemsOf: a link leads to a file that is there, from the folder of its document', (t) => {
  const guide = '# Guide\n\n[up](../README.md), [beside](other.md), [away](https://example.com/x), `[code](no.md)`\n';
  t.deepEqual(problems({ 'README.md': '[guide](docs/guide.md)', 'docs/guide.md': guide }), [
    'docs/guide.md: there is no other.md',
  ]);
});

test('problemsOf: an anchor is that of a heading, as GitHub makes it', (t) => {
  const page = ["# What's `new`, and why?", '## [Linked](x.md) heading', '## Twice', '## Twice', ''].join('\n');
  const links = ['whats-new-and-why', 'linked-heading', 'twice', 'twice-1', 'twice-2'];
  t.deepEqual(problems({ 'x.md': `${page}${links.map((anchor) => `[a](#${anchor})`).join(' ')}` }), [
    'x.md: x.md has no heading #twice-2',
  ]);
  t.deepEqual(problems({ 'a.md': '[b](b.md#no)', 'b.md': '```text\n# no\n```\n' }), ['a.md: b.md has no heading #no']);
});

test('problemsOf: each block of shell says whether it is run', (t) => {
  const blocks = ['sh run', 'sh run fails', 'sh shown', 'text', 'sh', 'sh ran', 'bash'];
  const text = blocks.map((block) => `\`\`\`${block}\ntrue\n\`\`\`\n`).join('\n');
  const wrong = problems({ 'x.md': text }).map((problem) => /```(.*?) should/.exec(problem)?.[1]);
  t.deepEqual(wrong, ['sh', 'sh ran', 'bash']);
});

test('problemsOf: the README has no more than 250 lines', (t) => {
  t.deepEqual(problems({ 'README.md': 'a\n'.repeat(250) }), []);
  t.is(problems({ 'README.md': 'a\n'.repeat(251) }).length, 1);
});

test('problemsOf: the index of a folder names each of its pages', (t) => {
  const index = '[one](one.md), [more](more/README.md)';
  t.deepEqual(problems({ 'docs/README.md': index, 'docs/one.md': '', 'docs/two.md': '', 'docs/more/README.md': '' }), [
    "docs/two.md: docs/README.md doesn't name it",
  ]);
});
