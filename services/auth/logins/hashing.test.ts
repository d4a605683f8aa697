import { readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { opened } from '../../../test/opened.ts';
import { openHashing } from './hashing.ts';
import { openPasswords } from './passwords.ts';

const hashing = opened(
  async () => openHashing({ threads: 2 }),
  (hashing) => hashing.close(),
);

/** The nice values of the threads of this process, on Linux. */
function niceValues(): number[] {
  return readdirSync('/proc/self/task').map((thread) => {
    const stat = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8');
    // The name of a thread may have spaces and brackets: proc_pid_stat(5) counts from 1, the first behind it is the third.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19 - 3]);
  });
}

test('a password is that of its own hash alone', async (t) => {
  const hash = await hashing.hash('a password', 4);
  t.regex(hash, /^\$2b\$04\$/);
  t.true(await hashing.compare('a password', hash));
  t.false(await hashing.compare('another', hash));
  await t.throwsAsync(hashing.hash(undefined as never, 4), { message: /required/ });
  t.true(await hashing.compare('a password', hash), 'and after an error it goes on');
});

(process.platform === 'linux' ? test : test.skip)('threads that hash give way to all others', async (t) => {
  await Promise.all(Array.from({ length: 4 }, () => hashing.hash('a password', 8)));
  const values = niceValues();
  const own = values[0]!;
  t.is(values.filter((value) => value === Math.min(19, own + 10)).length, 2);
  t.true(
    values.every((value) => value === own || value === Math.min(19, own + 10)),
    values.join(),
  );
});

test('openPasswords: of the longest password every byte counts', async (t) => {
  const { hash, matches } = openPasswords({ cost: 4, hashing });
  const longest = 'é'.repeat(35) + '12';
  t.is(Buffer.byteLength(longest), 72);
  const hashed = await hash(longest);
  t.true(await matches(longest, hashed));
  t.false(await matches(`${longest.slice(0, -1)}3`, hashed));
});
