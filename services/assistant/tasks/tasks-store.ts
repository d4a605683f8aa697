import { hubDate } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';
import { taskLimits, taskNotFound, tooManyTasks, type Task, type TaskChange, type TaskOrder } from './tasks.ts';

export type Tasks = ReturnType<typeof openTasks>;

const pageSize = 500;
const columns = `id, title, description, completed, created_at as "createdAt", updated_at as "updatedAt"`;

const sortColumns = { createdAt: 'created_at', updatedAt: 'updated_at', title: 'title_key' } as const;
const sortTypes = { createdAt: 'timestamptz', updatedAt: 'timestamptz', title: 'text' } as const;

/** All statements that list tasks: each text is a constant. */
const listings = new Map(
  (['createdAt', 'updatedAt', 'title'] as const).flatMap((sort) =>
    (['asc', 'desc'] as const).map((order) => {
      const [column, type, behind] = [sortColumns[sort], sortTypes[sort], order === 'asc' ? '>' : '<'];
      const statement = `select ${columns}, ${column} as "key" from tasks
        where user_id = $1 and completed = any($2::boolean[])
          and ($4::bigint is null or (${column}, id) ${behind} ($3::${type}, $4))
        order by ${column} ${order}, id ${order} limit ${pageSize}`;
      return [`${sort} ${order}`, statement] as const;
    }),
  ),
);

const filters = { all: [false, true], pending: [false], completed: [true] } as const;

/** The tasks of users. Each of them sees their own alone: for others' it is as if they weren't there. */
export function openTasks(db: Database) {
  return {
    /**
     * Makes a task.
     *
     * @param callId of a call that may be repeated: the repeated one gets the task that the first has made
     * @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_TASKS`
     */
    async add(
      userId: string,
      { title, description, callId }: { title: string; description?: string | null; callId?: string | undefined },
    ): Promise<Task> {
      const now = hubDate();
      const [added] = await db.sql<Task>(
        `insert into tasks (user_id, title, title_key, description, completed, created_at, updated_at, call_id)
         select $1, $2, $3, $4, false, $5, $5, $6
          where (select count(*) from tasks where user_id = $1) < ${taskLimits.perUser}
         on conflict (user_id, call_id) do nothing
         returning ${columns}`,
        [userId, title.trim(), titleKey(title), description || null, now, callId ?? null],
      );
      if (added !== undefined) return added;
      const [before] = await db.sql<Task>(`select ${columns} from tasks where user_id = $1 and call_id = $2`, [
        userId,
        callId ?? null,
      ]);
      if (before === undefined) throw tooManyTasks();
      return before;
    },

    async find(userId: string, id: bigint): Promise<Task | undefined> {
      const [found] = await db.sql<Task>(`select ${columns} from tasks where user_id = $1 and id = $2`, [userId, id]);
      return found;
    },

    /** The tasks in their order, up to 500 at a time: at least one page, which may be empty. */
    async *list(userId: string, { filter, sort, order }: TaskOrder): AsyncGenerator<Task[]> {
      const statement = listings.get(`${sort} ${order}`)!;
      let after: { key: Date | string | null; id: bigint | null } = { key: null, id: null };
      for (;;) {
        const page: (Task & { key: Date | string })[] = await db.sql(statement, [
          userId,
          filters[filter],
          after.key,
          after.id,
        ]);
        yield page;
        const last = page.at(-1);
        if (last === undefined || page.length < pageSize) return;
        after = last;
      }
    },

    /** @throws HubError NOT_FOUND `TASK_NOT_FOUND` */
    async change(userId: string, id: bigint, { title, description }: TaskChange): Promise<Task> {
      const [changed] = await db.sql<Task>(
        `update tasks
            set title = coalesce($3, title), title_key = coalesce($4, title_key),
                description = case when $5 then $6 else description end, updated_at = $7
          where user_id = $1 and id = $2
         returning ${columns}`,
        [
          userId,
          id,
          title?.trim() ?? null,
          title === undefined ? null : titleKey(title),
          description !== undefined,
          description || null,
          hubDate(),
        ],
      );
      return changed ?? refuse();
    },

    /** Completes a task, unless it is completed. @throws HubError NOT_FOUND `TASK_NOT_FOUND` */
    async complete(userId: string, id: bigint): Promise<Task> {
      const [completed] = await db.sql<Task>(
        `update tasks set completed = true, updated_at = case when completed then updated_at else $3 end
          where user_id = $1 and id = $2
         returning ${columns}`,
        [userId, id, hubDate()],
      );
      return completed ?? refuse();
    },

    /** Completes a task that is pending, and the other way round. @throws HubError NOT_FOUND `TASK_NOT_FOUND` */
    async toggle(userId: string, id: bigint): Promise<Task> {
      const [toggled] = await db.sql<Task>(
        `update tasks set completed = not completed, updated_at = $3 where user_id = $1 and id = $2
         returning ${columns}`,
        [userId, id, hubDate()],
      );
      return toggled ?? refuse();
    },

    /** @returns the task as it was @throws HubError NOT_FOUND `TASK_NOT_FOUND` */
    async remove(userId: string, id: bigint): Promise<Task> {
      const [removed] = await db.sql<Task>(`delete from tasks where user_id = $1 and id = $2 returning ${columns}`, [
        userId,
        id,
      ]);
      return removed ?? refuse();
    },
  };
}

function titleKey(title: string): string {
  return title.trim().toLowerCase();
}

function refuse(): never {
  throw taskNotFound();
}
