import { client } from '../shell/session.ts';
import { ShareBar } from './charts.tsx';
import { Table, Title } from './fields.tsx';
import { lastDays, numberOf, wordOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices } from './paging.tsx';
import { periods, ToolTable } from './usage.tsx';

/** What all users have used, for administrators. */
export function Statistics() {
  const start_date = lastDays(Number(chosenOf('days', periods)))[0]!;
  const stats = useLoaded((signal) => client.toolAdmin.getUsageStats({ start_date }, { signal }), [start_date]);
  return (
    <>
      <Title>Statistics</Title>
      <Choices label="Period" name="days" choices={periods} />
      <Shown of={stats} what="the statistics">
        {({ total_users, total_invocations, total_tokens, by_plan, by_tool }) => {
          const mostOfPlans = Math.max(0, ...by_plan.map(({ tokens_used }) => tokens_used));
          const mostOfTools = Math.max(0, ...by_tool.map(({ tokens_used }) => tokens_used));
          return (
            <>
              <dl class="totals">
                <div class="panel">
                  <dt>Users in all</dt>
                  <dd>{numberOf(total_users)}</dd>
                </div>
                <div class="panel">
                  <dt>Calls</dt>
                  <dd>{numberOf(total_invocations)}</dd>
                </div>
                <div class="panel">
                  <dt>Tokens</dt>
                  <dd>{numberOf(total_tokens)}</dd>
                </div>
              </dl>
              <section class="panel stack">
                <h3>By plan</h3>
                <Table label="By plan" heads={['Plan', 'Share', '#Tokens', '#Users now']}>
                  {by_plan.map(({ plan, user_count, tokens_used }) => (
                    <tr key={plan}>
                      <th scope="row">{wordOf(plan)}</th>
                      <td class="share-cell">
                        <ShareBar value={tokens_used} most={mostOfPlans} />
                      </td>
                      <td class="number">{numberOf(tokens_used)}</td>
                      <td class="number">{numberOf(user_count)}</td>
                    </tr>
                  ))}
                </Table>
              </section>
              <section class="panel stack">
                <h3>By tool</h3>
                {by_tool.length === 0 ? (
                  <p class="quiet">No calls in these days.</p>
                ) : (
                  <ToolTable tools={by_tool} most={mostOfTools} valueOf={({ tokens_used }) => tokens_used} />
                )}
              </section>
            </>
          );
        }}
      </Shown>
    </>
  );
}
