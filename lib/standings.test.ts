import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../test/eventually.ts';
import { HubError } from './errors.ts';
import { openLog } from './log.ts';
import { followStandings, type Changes } from './standings.ts';

interface Noted {
  number: bigint;
  userId?: string;
  admin?: boolean;
  disabled?: boolean;
  keyId?: string;
}

/** Follows what the test notes. */
function follow(t: ExecutionContext, { noted = [] as Noted[], page = 1_000, readAgain = 600_000 } = {}) {
  const asked: bigint[] = [];
  const revoked: string[] = [];
  const disabled: string[] = [];
  const lines: { level: number; msg: string }[] = [];
  const state = { away: false, news: Promise.withResolvers<void>() };
  const log = openLog({
    name: 'test',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[number]) },
  });

  async function changesAfter(cursor: bigint, signal: AbortSignal): Promise<Changes> {
    asked.push(cursor);
    if (state.away) throw new HubError('UNAVAILABLE', 'SERVICE_UNAVAILABLE', 'away');
    const found = noted.filter(({ number }) => number > cursor).toSorted((a, b) => (a.number < b.number ? -1 : 1));
    if (found.length === 0 && cursor > 0n) {
      const aborted = new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason as Error)),
      );
      await Promise.race([state.news.promise, aborted]);
      if (state.away) throw new HubError('UNAVAILABLE', 'SERVICE_UNAVAILABLE', 'away');
      return changesAfter(cursor, signal);
    }
    const shown = found.slice(0, page);
    return {
      cursor: shown.at(-1)?.number ?? 1n,
      more: shown.length < found.length,
      standings: shown.flatMap(({ userId, admin = false, disabled = false }) =>
        userId === undefined ? [] : [{ userId, admin, disabled }],
      ),
      revokedKeyIds: shown.flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])),
    };
  }

  const standings = followStandings({
    changesAfter,
    onRevoked: (ids) => revoked.push(...ids),
    onDisabled: (ids) => disabled.push(...ids),
    log,
    readAgain,
  });
  t.teardown(() => standings.stop());
  const tell = () => {
    state.news.resolve();
    state.news = Promise.withResolvers();
  };
  const note = (...more: Noted[]) => {
    noted.push(...more);
    tell();
  };
  return { standings, asked, revoked, disabled, lines, state, noted, note, tell };
}

test('followStandings: begins with all there is, page by page, and says when it knows them', async (t) => {
  const noted = Array.from({ length: 5 }, (_, index) => ({
    number: BigInt(index + 2),
    userId: `u${index}`,
    admin: true,
  }));
  const { standings, asked } = follow(t, { noted, page: 2 });
  t.is(standings.of('u4'), undefined);
  await standings.coming;
  t.is(standings.coming, undefined);
  for (const { userId } of noted) t.deepEqual(standings.of(userId), { admin: true, disabled: false });
  t.is(standings.of('somebody else'), undefined);
  await eventually(
    'polls',
    () => asked.length,
    (count) => count === 4,
  );
  t.deepEqual(asked, [0n, 3n, 5n, 6n]);
});

test('followStandings: hears of each change, and of revoked keys', async (t) => {
  const { standings, revoked, disabled, note } = follow(t);
  await standings.coming;
  note({ number: 2n, userId: 'u1', disabled: true }, { number: 3n, keyId: 'k1' });
  await eventually(
    'the change',
    () => standings.of('u1'),
    (found) => found?.disabled === true,
    1_000,
  );
  t.deepEqual(revoked, ['k1']);
  t.deepEqual(disabled, ['u1']);
  note({ number: 4n, userId: 'u1', admin: true });
  await eventually(
    'the change',
    () => standings.of('u1'),
    (found) => found?.disabled === false && found.admin,
    1_000,
  );
  t.deepEqual(disabled, ['u1']);
});

test('followStandings: the first calls wait for a second at most', async (t) => {
  const began = Date.now();
  const { standings, state } = follow(t);
  state.away = true;
  const silent = followStandings({
    changesAfter: () => new Promise(() => {}),
    onRevoked: () => {},
    onDisabled: () => {},
    log: openLog({ name: 'test', format: 'json', level: 'silent' }),
  });
  await silent.coming;
  const waited = Date.now() - began;
  t.true(waited >= 950 && waited < 5_000, `${waited} ms`);
  await standings.coming;
});

test('followStandings: while nobody answers, what was known counts; that is said once, and when it works again', async (t) => {
  const { standings, asked, lines, state, note, tell } = follow(t, {
    noted: [{ number: 2n, userId: 'u1', disabled: true }],
  });
  await standings.coming;
  state.away = true;
  tell();
  await eventually(
    'the line',
    () => lines.length,
    (count) => count > 0,
  );
  const tries = asked.length;
  await sleep(2_100);
  t.true(asked.length > tries && asked.length <= tries + 3, 'tried again, but not all the time');
  t.deepEqual(standings.of('u1'), { admin: false, disabled: true });
  state.away = false;
  note({ number: 3n, userId: 'u1' });
  await eventually(
    'the change',
    () => standings.of('u1'),
    (found) => found?.disabled === false,
    4_000,
  );
  t.deepEqual(
    lines.map(({ level, msg }) => [level, msg.replace(/^.*: /, '')]),
    [
      [40, "doesn't work"],
      [30, 'works again'],
    ],
  );
});

test('followStandings: is read anew now and then, so that what no token needs is forgotten', async (t) => {
  const { standings, noted, note } = follow(t, {
    noted: [
      { number: 2n, userId: 'u1', admin: true },
      { number: 3n, userId: 'u2', admin: true },
    ],
    readAgain: 1,
  });
  await standings.coming;
  noted.shift();
  note({ number: 4n, userId: 'u3' });
  await eventually(
    'the standing',
    () => standings.of('u1'),
    (found) => found === undefined,
    3_000,
  );
  t.deepEqual(standings.of('u2'), { admin: true, disabled: false });
});

test('followStandings: stops though it waits, and what answers at once with nothing is not asked all the time', async (t) => {
  let asked = 0;
  const standings = followStandings({
    changesAfter: async (cursor) => {
      asked += 1;
      return { cursor: cursor || 1n, more: false, standings: [], revokedKeyIds: [] };
    },
    onRevoked: () => {},
    onDisabled: () => {},
    log: openLog({ name: 'test', format: 'json', level: 'silent' }),
  });
  await sleep(600);
  await standings.stop();
  t.true(asked >= 2 && asked <= 5, `${asked} times`);
  const { standings: waiting } = follow(t);
  await waiting.coming;
  await waiting.stop();
  t.pass();
});
