import type { Database } from '#lib/database.ts';
import type { Page } from '../catalog/catalog.ts';
import type { Days, PlanName, ResponseStatus } from '../tools.ts';

/** A call that was executed. */
export interface UsageRecord {
  /** UUID. */
  id: string;
  toolId: string;
  toolName: string;
  beganAt: Date;
  tokens: number;
  status: ResponseStatus;
  /** Milliseconds. */
  duration: number;
  requestId: string;
}

export interface Sum {
  tokens: number;
  invocations: number;
}

export interface ToolSum extends Sum {
  toolId: string;
  toolName: string;
}

export type UsageReads = ReturnType<typeof openUsage>;

interface SumRow {
  tokens: bigint;
  invocations: bigint;
}

const sumOf = ({ tokens, invocations }: SumRow): Sum => ({ tokens: Number(tokens), invocations: Number(invocations) });

function totalOf(sums: readonly Sum[]): Sum {
  return sums.reduce(
    (total, { tokens, invocations }) => ({
      tokens: total.tokens + tokens,
      invocations: total.invocations + invocations,
    }),
    { tokens: 0, invocations: 0 },
  );
}

function byCost(a: ToolSum, b: ToolSum): number {
  return b.tokens - a.tokens || b.invocations - a.invocations || (a.toolName < b.toolName ? -1 : 1);
}

const inDays = 'began_at >= $2::timestamptz and began_at < $3::timestamptz';

/** PostgreSQL's infinities stand for a missing limit. */
const ends = ({ from, until }: Days) => [from ?? '-infinity', until ?? 'infinity'];

/** What was used. */
export function openUsage(db: Database) {
  return {
    /** A page of a user's calls, newest first, and how many there are in all; of one tool, if `toolId` says which. */
    async list(
      userId: string,
      { days, toolId, limit, offset }: { days: Days; toolId: string | undefined } & Page,
    ): Promise<[UsageRecord[], number]> {
      const values = [userId, ...ends(days), toolId ?? null];
      const mine = `user_id = $1 and ${inDays} and ($4::uuid is null or tool_id = $4)`;
      const [rows, [count]] = await Promise.all([
        db.sql<Record<string, unknown>>(
          `with page as (select * from usage where ${mine} order by began_at desc, id desc limit $5 offset $6)
           select page.*, tools.name from page join tools on tools.id = page.tool_id
            order by page.began_at desc, page.id desc`,
          [...values, limit, offset],
        ),
        db.sql<{ total: bigint }>(`select count(*) as total from usage where ${mine}`, values),
      ]);
      const records = rows.map((row) => ({
        id: row['id'] as string,
        toolId: row['tool_id'] as string,
        toolName: row['name'] as string,
        beganAt: row['began_at'] as Date,
        tokens: Number(row['tokens']),
        status: row['status'] as ResponseStatus,
        duration: row['duration_ms'] as number,
        requestId: row['request_id'] as string,
      }));
      return [records, Number(count?.total)];
    },

    /** The sums of a user's calls, by tool, the dearest first, and by day, the first one first. */
    async summary(
      userId: string,
      days: Days,
    ): Promise<{ total: Sum; byTool: ToolSum[]; byDay: (Sum & { day: string })[] }> {
      // Both sums in one statement, so that they are of the same moment.
      const rows = await db.sql<SumRow & { tool_id: string | null; name: string | null; day: string | null }>(
        `with sums as (
           select tool_id, (began_at at time zone 'UTC')::date as day, sum(tokens) as tokens, count(*) as invocations
             from usage where user_id = $1 and ${inDays} group by 1, 2
         )
         select sums.tool_id, tools.name, null as day, sum(tokens)::bigint as tokens, sum(invocations)::bigint as invocations
           from sums join tools on tools.id = sums.tool_id group by 1, 2
         union all
         select null, null, day::text, sum(tokens)::bigint, sum(invocations)::bigint from sums group by day`,
        [userId, ...ends(days)],
      );
      const byTool = rows.flatMap((row) =>
        row.tool_id === null ? [] : [{ ...sumOf(row), toolId: row.tool_id, toolName: row.name! }],
      );
      const byDay = rows.flatMap((row) => (row.day === null ? [] : [{ ...sumOf(row), day: row.day }]));
      return {
        total: totalOf(byTool),
        byTool: byTool.toSorted(byCost),
        byDay: byDay.toSorted((a, b) => (a.day < b.day ? -1 : 1)),
      };
    },

    /** The sums of all users' calls, by tool, the dearest first, and by the plan that their users had then. */
    async stats(days: Days): Promise<{ total: Sum; byTool: ToolSum[]; byPlan: Map<PlanName, number> }> {
      const rows = await db.sql<SumRow & { tool_id: string; name: string; plan: PlanName }>(
        `select d.tool_id, t.name, d.plan, sum(d.tokens)::bigint as tokens, sum(d.invocations)::bigint as invocations
           from usage_days d join tools t on t.id = d.tool_id
          where d.day >= ($1::timestamptz at time zone 'UTC')::date and d.day < ($2::timestamptz at time zone 'UTC')::date
          group by 1, 2, 3`,
        ends(days),
      );
      const byTool = [...Map.groupBy(rows, (row) => row.tool_id)].map(([toolId, some]) => ({
        toolId,
        toolName: some[0]!.name,
        ...totalOf(some.map(sumOf)),
      }));
      const byPlan = Map.groupBy(rows, ({ plan }) => plan);
      return {
        total: totalOf(byTool),
        byTool: byTool.toSorted(byCost),
        byPlan: new Map([...byPlan].map(([plan, some]) => [plan, totalOf(some.map(sumOf)).tokens])),
      };
    },
  };
}
