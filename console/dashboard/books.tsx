import type { Balance, GetAuditResponse } from '#client/operations';
import { urlOf } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { auditOf } from './audit.ts';
import { Mark, Table, Title } from './fields.tsx';
import { countOf, durationOf, numberOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices } from './paging.tsx';

const spans = [
  ['1', 'An hour'],
  ['24', 'A day'],
  ['168', 'A week'],
  ['720', '30 days'],
] as const;

/** What was accepted, against what has become of it; for administrators. */
export function Books() {
  const hours = Number(chosenOf('hours', spans));
  const books = useLoaded(
    (signal) => auditOf((period) => client.operations.getAudit(period, { signal }), hours),
    [hours],
  );
  return (
    <>
      <Title
        beside={
          <button type="button" class="button" disabled={books.isLoading.value} onClick={() => void books.load()}>
            Refresh
          </button>
        }
      >
        Books
      </Title>
      <p class="quiet">Whether each message that was accepted is accounted for.</p>
      <Choices label="Period" name="hours" choices={spans} />
      <Shown of={books} what="the books">
        {(found) => <Audited books={found} />}
      </Shown>
    </>
  );
}

function Audited({ books }: { books: GetAuditResponse }) {
  const { from, to, balanced, messages, deliveries, next, removed_before, dead_letters_waiting } = books;
  return (
    <>
      <div class={balanced ? 'panel verdict good' : 'panel verdict bad'} role="status">
        <p class="words">{balanced ? 'Nothing is lost' : 'The books do not balance'}</p>
        <p>
          {balanced
            ? `Of ${countOf(messages.accepted, 'message')} each is delivered, failed for a known reason, or on its way.`
            : 'What is wrong is below.'}
        </p>
        <p class="quiet small">
          Accepted from {fullTime(from)} to {fullTime(to)}.
          {next !== null && ' The period is longer, but this is as much as could be read.'}
          {removed_before !== null && ` Messages of before ${fullTime(removed_before)} are not kept any more.`}
        </p>
      </div>
      <Table label="Balance" heads={['Accounts', '#Accepted', '#Delivered', '#Failed', '#On their way']}>
        <BalanceRow of="Messages" balance={messages} />
        <BalanceRow of="Deliveries" balance={deliveries} />
      </Table>
      <Problems of={books} />
      <section class="stack">
        <h3>Waiting now</h3>
        <dl class="facts">
          <dt>Dead letters</dt>
          <dd>
            {dead_letters_waiting === 0 ? (
              'None'
            ) : (
              <a href={urlOf('dashboard', 'dead-letters')}>{numberOf(dead_letters_waiting)}</a>
            )}
          </dd>
          <dt>Not on the bus yet</dt>
          <dd>
            {books.outbox_events === 0
              ? 'Nothing'
              : `${countOf(books.outbox_events, 'event')}, the oldest for ${durationOf(books.outbox_age_ms)}`}
          </dd>
          <dt>Longest on its way</dt>
          <dd>
            {books.oldest_in_flight === null ? (
              'Nothing is on its way'
            ) : (
              <>
                {durationOf(books.oldest_in_flight.age_ms)}: message{' '}
                <MessageLink id={books.oldest_in_flight.message_id} />
              </>
            )}
          </dd>
        </dl>
      </section>
      <section class="stack">
        <h3>Consumers</h3>
        {!books.lag_known ? (
          <p class="notice warn">The bus does not say how far they are.</p>
        ) : (
          <Table label="Consumers" heads={['Topic', 'Group', '#Events behind']}>
            {books.lag.map(({ topic, group, events }) => (
              <tr key={`${topic} ${group}`}>
                <th scope="row">{topic}</th>
                <td>{group}</td>
                <td class="number">{numberOf(events)}</td>
              </tr>
            ))}
          </Table>
        )}
      </section>
    </>
  );
}

function MessageLink({ id }: { id: string }) {
  return (
    <a class="id" href={urlOf('dashboard', 'trace', id)}>
      {id}
    </a>
  );
}

function BalanceRow({ of, balance: { accepted, delivered, failed, in_flight } }: { of: string; balance: Balance }) {
  return (
    <tr data-balance={of}>
      <th scope="row">{of}</th>
      <td class="number">{numberOf(accepted)}</td>
      <td class="number">{numberOf(delivered)}</td>
      <td class="number">{failed > 0 ? <Mark is="bad">{numberOf(failed)}</Mark> : 0}</td>
      <td class="number">{numberOf(in_flight)}</td>
    </tr>
  );
}

/** What does not add up. */
function Problems({ of: { mismatched, mismatched_total, overdue, gaps, gaps_total } }: { of: GetAuditResponse }) {
  if (mismatched_total + overdue + gaps_total === 0) return null;
  return (
    <section class="stack">
      <h3>What is wrong</h3>
      {overdue > 0 && <p class="notice bad">{countOf(overdue, 'message')} should have ended by now.</p>}
      {mismatched_total > 0 && (
        <div class="notice bad">
          <p>{countOf(mismatched_total, 'message contradicts', 'messages contradict')} their deliveries or history:</p>
          <ul>
            {mismatched.map((id) => (
              <li key={id}>
                <MessageLink id={id} />
              </li>
            ))}
          </ul>
        </div>
      )}
      {gaps_total > 0 && (
        <div class="notice bad">
          <p>{countOf(gaps_total, 'gap')} in the positions of conversations:</p>
          <ul>
            {gaps.map(({ conversation_id, from_seq, to_seq, missing }) => (
              <li key={`${conversation_id} ${from_seq}`}>
                {countOf(missing, 'message')} between {numberOf(from_seq)} and {numberOf(to_seq)} of {conversation_id}
              </li>
            ))}
          </ul>
        </div>
      )}
    </section>
  );
}
