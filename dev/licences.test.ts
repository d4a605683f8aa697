import test from 'ava';
import { isAllowed } from './licences.ts';

test('a licence is allowed if every part is that somebody has to agree to', (t) => {
  for (const good of ['MIT', '(MIT OR GPL-3.0)', 'Apache-2.0 AND BSD-3-Clause', '(MIT AND (ISC OR 0BSD))']) {
    t.true(isAllowed(good), good);
  }
  for (const bad of [
    undefined,
    '',
    'GPL-3.0',
    'MIT AND AGPL-3.0',
    '(MIT OR ISC) AND AGPL-3.0',
    '(SSPL-1.0 OR GPL-3.0)',
    'UNLICENSED',
    'mit-like',
  ]) {
    t.false(isAllowed(bad), bad);
  }
});
