import test from 'ava';
import fc from 'fast-check';
import pg from 'pg';
import { openHarness } from '../test/harness.ts';
import { opened } from '../test/opened.ts';
import { withArrays } from './sql-arrays.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const client = opened(
  async () => {
    const client = new pg.Client({ connectionString: harness.databaseUrl('message') });
    await client.connect();
    return client;
  },
  (client) => client.end(),
);

/** What PostgreSQL has of an array: of each item its text, by pg's own means and by ours. */
async function readBack(type: string, items: readonly unknown[]): Promise<{ own: unknown; ours: unknown }> {
  const text = `select to_jsonb(array(select item::text from unnest($1::${type}[]) with ordinality as t (item, at) order by at)) as items`;
  const ask = async (values: unknown[]) => (await client.query(text, values)).rows[0].items as unknown;
  return { own: await ask([items]), ours: await ask(withArrays([items])) };
}

const kinds: Record<string, fc.Arbitrary<unknown>> = {
  text: fc.oneof(
    fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0')),
    fc.constantFrom(
      '',
      'null',
      'NULL',
      '{}',
      '{a,b}',
      '"',
      '\\',
      'a b',
      ' a',
      "it's",
      'ação',
      '\n',
      '--',
      '1e5',
      '\\x61',
    ),
  ),
  uuid: fc.uuid(),
  bytea: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  int: fc.integer(),
  bigint: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  boolean: fc.boolean(),
  float8: fc.double(),
  timestamptz: fc.date({ min: new Date(0), max: new Date('9999-12-30'), noInvalidDate: true }),
  jsonb: fc.json(),
};

for (const [type, item] of Object.entries(kinds)) {
  test.serial(`an array of ${type} is what pg would make of it`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(item), { maxLength: 20 }), async (items) => {
        const { own, ours } = await readBack(type, items);
        t.deepEqual(ours, own);
      }),
      { numRuns: 100 },
    );
  });
}

test('what is no array, and arrays of other things, are left to pg', (t) => {
  const values = [
    '{a}',
    1,
    null,
    Buffer.from('a'),
    [['a'], ['b']],
    [{ a: 1 }],
    [Buffer.from('a'), 'b'],
    [new Date(-1)],
  ];
  t.deepEqual(withArrays(values), values);
});
