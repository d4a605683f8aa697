import test from 'ava';
import pg from 'pg';
import { openLog } from './log.ts';
import { startForgetting } from './forgetting.ts';
import { eventually } from '../test/eventually.ts';
import { openHarness } from '../test/harness.ts';
import { opened } from '../test/opened.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const pool = opened(
  () => new pg.Pool({ connectionString: harness.adminDatabaseUrl }),
  (pool) => pool.end(),
);
const log = openLog({ name: 'test', format: 'json', level: 'silent' });

test('old rows go in walks of some pages each, also those that become old later, and others stay', async (t) => {
  await pool.query(`create table seen (id int, at timestamptz, note text)`);
  // Some thousand pages, the old rows among the others.
  await pool.query(
    `insert into seen select n, now() - case when n % 3 = 0 then interval '2 h' else interval '0' end, repeat('x', 1500)
      from generate_series(1, 6000) as n`,
  );
  const deleted: number[] = [];
  const database = {
    async sql<Row>(statement: string, values: readonly unknown[] = []): Promise<Row[]> {
      const { rows } = await pool.query(statement, [...values]);
      deleted.push(Number(rows[0].deleted));
      return rows.map((row: { pages: string }) => ({ ...row, pages: BigInt(row.pages) })) as Row[];
    },
  };
  const counts = async () =>
    (
      await pool.query<{ old: number; others: number }>(
        `select count(*) filter (where n_old)::int as old, count(*) filter (where not n_old)::int as others
          from (select id % 3 = 0 as n_old from seen) as rows`,
      )
    ).rows[0]!;
  const walk = { batchSize: 500, everyMs: 20, pauseMs: 1 };
  const forgetting = startForgetting({ database, table: 'seen', isOld: 'at < $3', retention: 3_600_000, log, walk });
  t.teardown(() => forgetting.stop());
  t.deepEqual(await eventually('the old ones are gone', counts, ({ old }) => old === 0), { old: 0, others: 4_000 });
  t.true(deleted.length >= 2 && Math.max(...deleted) < 1_500, 'in more than one statement');

  await pool.query(`update seen set at = now() - interval '2 h' where id = 1`);
  await eventually('what became old is gone, too', counts, ({ others }) => others === 3_999);
});
