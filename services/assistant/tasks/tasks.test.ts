import { randomUUID } from 'node:crypto';
import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database as definition } from '../database.ts';
import { openTasks } from './tasks-store.ts';
import { taskProblems, type SortOrder, type TaskFilter, type TaskSort } from './tasks.ts';

const harness = opened(openHarness, (each) => each.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('assistant'), poolSize: 5, name: 'test' }),
  (each) => each.close(),
);
const tasks = openTasks(database);

async function listed(
  userId: string,
  filter: TaskFilter = 'all',
  sort: TaskSort = 'createdAt',
  order: SortOrder = 'asc',
) {
  const all = [];
  for await (const page of tasks.list(userId, { filter, sort, order })) all.push(...page);
  return all;
}

test('taskProblems: a title has 1 to 200 characters without the white space around it', (t) => {
  t.deepEqual(taskProblems({ title: `  ${'é'.repeat(200)}\n` }), []);
  t.deepEqual(taskProblems({ title: '😀'.repeat(200) }), []);
  for (const title of ['', ' \t\n', 'x'.repeat(201), 'nul\0']) {
    t.deepEqual(
      taskProblems({ title }).map(({ field }) => field),
      ['title'],
      JSON.stringify(title),
    );
  }
});

test('taskProblems: a description has up to 1,000 characters, and may be taken away', (t) => {
  t.deepEqual(taskProblems({ description: 'x'.repeat(1_000) }), []);
  t.deepEqual(taskProblems({ description: null }), []);
  t.is(taskProblems({ description: 'x'.repeat(1_001) })[0]?.field, 'description');
  t.is(taskProblems({ description: 'a\0b' })[0]?.field, 'description');
});

test('a task is trimmed, pending and found by its owner alone', async (t) => {
  const [ana, bia] = [randomUUID(), randomUUID()];
  const task = await tasks.add(ana, { title: '  Buy groceries ', description: '' });
  t.like(task, { title: 'Buy groceries', description: null, completed: false });
  t.deepEqual(task.createdAt, task.updatedAt);
  t.deepEqual(await tasks.find(ana, task.id), task);
  t.is(await tasks.find(bia, task.id), undefined);
  for (const refused of [
    () => tasks.change(bia, task.id, { title: 'Hers' }),
    () => tasks.complete(bia, task.id),
    () => tasks.toggle(bia, task.id),
    () => tasks.remove(bia, task.id),
  ]) {
    await t.throwsAsync(refused, { message: 'There is no such task' });
  }
  t.deepEqual(await listed(bia), []);
  t.is((await tasks.find(ana, task.id))?.title, 'Buy groceries');
});

test('change: what is not said stays as it is', async (t) => {
  const user = randomUUID();
  const { id } = await tasks.add(user, { title: 'Call mom', description: 'about Sunday' });
  t.like(await tasks.change(user, id, { title: 'Call mom tonight' }), {
    title: 'Call mom tonight',
    description: 'about Sunday',
  });
  t.like(await tasks.change(user, id, { description: null }), { title: 'Call mom tonight', description: null });
  const before = await tasks.find(user, id);
  t.like(await tasks.change(user, id, {}), { title: before!.title, description: before!.description });
});

test('toggle goes back and forth, complete only forth', async (t) => {
  const user = randomUUID();
  const { id } = await tasks.add(user, { title: 'Pay bills' });
  t.true((await tasks.toggle(user, id)).completed);
  t.false((await tasks.toggle(user, id)).completed);
  const completed = await tasks.complete(user, id);
  t.true(completed.completed);
  t.deepEqual(await tasks.complete(user, id), completed);
});

test('add: a call that is repeated has the task that it has made, once', async (t) => {
  const [ana, bia] = [randomUUID(), randomUUID()];
  const callId = randomUUID();
  const added = await Promise.all([1, 2, 3].map(() => tasks.add(ana, { title: 'Once', callId })));
  t.is(new Set(added.map(({ id }) => id)).size, 1);
  t.is((await listed(ana)).length, 1);
  await tasks.add(bia, { title: 'Of somebody else', callId });
  t.is((await listed(ana)).length, 1);
});

test('list: filters, and sorts in both directions; letter case does not matter in titles', async (t) => {
  const user = randomUUID();
  const ids = [];
  for (const title of ['banana', 'Apple', 'cherry', 'apple']) ids.push((await tasks.add(user, { title })).id);
  const [banana, apple, cherry, second] = ids;
  await tasks.complete(user, apple!);
  const idsOf = async (...order: [TaskFilter, TaskSort, SortOrder]) =>
    (await listed(user, ...order)).map(({ id }) => id);
  t.deepEqual(await idsOf('all', 'createdAt', 'asc'), ids);
  t.deepEqual(await idsOf('all', 'createdAt', 'desc'), ids.toReversed());
  t.deepEqual(await idsOf('all', 'title', 'asc'), [apple!, second!, banana!, cherry!]);
  t.deepEqual(await idsOf('all', 'title', 'desc'), [cherry!, banana!, second!, apple!]);
  t.deepEqual((await idsOf('all', 'updatedAt', 'desc'))[0], apple);
  t.deepEqual(await idsOf('completed', 'createdAt', 'asc'), [apple!]);
  t.deepEqual(await idsOf('pending', 'createdAt', 'asc'), [banana!, cherry!, second!]);
});

test('list: each of 1,234 tasks once, in pages, whatever the order', async (t) => {
  const user = randomUUID();
  // Many of them alike in what they are sorted by.
  await database.sql(
    `insert into tasks (user_id, title, title_key, completed, created_at, updated_at)
     select $1, 'Task', 'task ' || n % 7, n % 2 = 0, now() - (n % 5) * interval '1 hour', now() - (n % 3) * interval '1 hour'
       from generate_series(1, 1234) n`,
    [user],
  );
  for (const sort of ['createdAt', 'updatedAt', 'title'] as const) {
    for (const order of ['asc', 'desc'] as const) {
      const sizes: number[] = [];
      const ids = new Set<bigint>();
      for await (const page of tasks.list(user, { filter: 'all', sort, order })) {
        sizes.push(page.length);
        for (const { id } of page) ids.add(id);
      }
      t.deepEqual(sizes, [500, 500, 234], `${sort} ${order}`);
      t.is(ids.size, 1_234, `${sort} ${order}`);
    }
  }
});

test('add: a user has up to 20,000 tasks', async (t) => {
  const user = randomUUID();
  await database.sql(
    `insert into tasks (user_id, title, title_key, completed, created_at, updated_at)
     select $1, 'Task', 'task', false, now(), now() from generate_series(1, 20000)`,
    [user],
  );
  const error = await t.throwsAsync(() => tasks.add(user, { title: 'One more' }));
  t.like(error, { kind: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_TASKS' });
});
