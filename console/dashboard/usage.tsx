import type { GetUsageSummaryResponse } from '#client/tools';
import { Empty } from '../shell/components.tsx';
import { urlOf, query } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { DayChart, ShareBar } from './charts.tsx';
import { Mark, Table, Title } from './fields.tsx';
import { countOf, durationOf, lastDays, numberOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices, pageAsked, Pages, urlWith } from './paging.tsx';
import { findSubscription, PlanMeter } from './plan.tsx';

/** How many days back, until today. */
export const periods = [
  ['30', '30 days'],
  ['7', '7 days'],
  ['90', '90 days'],
  ['365', 'A year'],
] as const;

const measures = [
  ['tokens', 'Tokens'],
  ['calls', 'Calls'],
] as const;

/** What one has used: by day, by tool, and each call. */
export function Usage() {
  const days = lastDays(Number(chosenOf('days', periods)));
  const start_date = days[0]!;
  const tool = query.value.get('tool') ?? undefined;
  const page = pageAsked();
  const subscription = useLoaded((signal) => findSubscription(signal));
  const summary = useLoaded(
    async (signal) => ({ days, ...(await client.usage.getUsageSummary({ start_date }, { signal })) }),
    [start_date],
  );
  const calls = useLoaded(
    (signal) =>
      client.usage.listUsage({ ...page, start_date, ...(tool === undefined ? {} : { tool_id: tool }) }, { signal }),
    [start_date, tool, page.offset],
  );
  const refresh = () => {
    for (const each of [subscription, summary, calls]) void each.load();
  };
  return (
    <>
      <Title
        beside={
          <button type="button" class="button" onClick={refresh}>
            Refresh
          </button>
        }
      >
        Usage
      </Title>
      <section class="panel" aria-label="Plan">
        <Shown of={subscription} what="your plan">
          {(found) => <PlanMeter subscription={found} isElsewhere />}
        </Shown>
      </section>
      <div class="row apart">
        <Choices label="Period" name="days" choices={periods} />
        <Choices label="Shown" name="of" choices={measures} />
      </div>
      <Shown of={summary} what="your usage">
        {(found) => <Sums of={found} />}
      </Shown>
      <section class="stack">
        <div class="row apart">
          <h3>Calls</h3>
          {tool !== undefined && (
            <a class="small" href={urlWith({ tool: undefined, page: undefined })}>
              Show those of all tools
            </a>
          )}
        </div>
        <Shown of={calls} what="the calls">
          {(found) =>
            found.length === 0 && found.pagination.total === 0 ? (
              <Empty title="No calls in these days">
                <a class="button" href={urlOf('dashboard', 'tools')}>
                  Try a tool out
                </a>
              </Empty>
            ) : (
              <>
                <Table label="Calls" heads={['When', 'Tool', 'Outcome', '#Tokens', '#Took']}>
                  {found.map(({ id, timestamp, tool_id, tool_name, response_status, tokens_used, duration_ms }) => (
                    <tr key={id}>
                      <td>
                        <time dateTime={timestamp}>{fullTime(timestamp)}</time>
                      </td>
                      <td class="free">
                        <a href={urlWith({ tool: tool_id, page: undefined })} dir="auto">
                          {tool_name}
                        </a>
                      </td>
                      <td>
                        <Mark is={response_status === 'success' ? 'good' : 'bad'}>{outcomes[response_status]}</Mark>
                      </td>
                      <td class="number">{numberOf(tokens_used)}</td>
                      <td class="number">{durationOf(duration_ms)}</td>
                    </tr>
                  ))}
                </Table>
                <Pages total={found.pagination.total} of="calls" />
              </>
            )
          }
        </Shown>
      </section>
    </>
  );
}

const outcomes = { success: 'Succeeded', error: 'Failed', timeout: 'Timed out' };

function Sums({
  of: { days, by_day, by_tool, total_tokens, total_invocations },
}: {
  of: GetUsageSummaryResponse & { days: readonly string[] };
}) {
  const isTokens = chosenOf('of', measures) === 'tokens';
  const valueOf = ({ tokens_used, invocation_count }: { tokens_used: number; invocation_count: number }) =>
    isTokens ? tokens_used : invocation_count;
  const known = new Map(by_day.map((day) => [day.date, valueOf(day)]));
  const tools = by_tool.toSorted((a, b) => valueOf(b) - valueOf(a));
  const most = tools.length === 0 ? 0 : valueOf(tools[0]!);
  return (
    <>
      <section class="panel stack">
        <div class="row apart">
          <h3>
            By day <span class="quiet small">(in UTC)</span>
          </h3>
          <p class="quiet">
            {countOf(total_tokens, 'token')} in {countOf(total_invocations, 'call')}
          </p>
        </div>
        <DayChart
          days={days.map((date) => ({ date, value: known.get(date) ?? 0 }))}
          of={isTokens ? 'tokens' : 'calls'}
        />
      </section>
      {tools.length > 0 && (
        <section class="panel stack">
          <h3>By tool</h3>
          <ToolTable
            tools={tools}
            most={most}
            valueOf={valueOf}
            linkOf={(id) => urlWith({ tool: id, page: undefined })}
          />
        </section>
      )}
    </>
  );
}

/** What each tool was used for, with a bar for one of its numbers. */
export function ToolTable({
  tools,
  most,
  valueOf,
  linkOf,
}: {
  tools: GetUsageSummaryResponse['by_tool'];
  /** The greatest of the values. */
  most: number;
  valueOf: (tool: GetUsageSummaryResponse['by_tool'][number]) => number;
  linkOf?: (tool: string) => string;
}) {
  return (
    <Table label="By tool" heads={['Tool', 'Share', '#Tokens', '#Calls']}>
      {tools.map((tool) => (
        <tr key={tool.tool_id} data-tool={tool.tool_name}>
          <th scope="row" dir="auto">
            {linkOf === undefined ? tool.tool_name : <a href={linkOf(tool.tool_id)}>{tool.tool_name}</a>}
          </th>
          <td class="share-cell">
            <ShareBar value={valueOf(tool)} most={most} />
          </td>
          <td class="number">{numberOf(tool.tokens_used)}</td>
          <td class="number">{numberOf(tool.invocation_count)}</td>
        </tr>
      ))}
    </Table>
  );
}
