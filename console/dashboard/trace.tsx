import { useSignal } from '@preact/signals';
import { isRefused } from '#client';
import type { Attempt } from '#client/connectors';
import type { GetRouteResponse } from '#client/router';
import { Field, Form } from '../shell/components.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Mark, Table, Title } from './fields.tsx';
import { numberOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';

/** `/console/dashboard/trace`: asks for a message; `/<id>`: where its copies went, and what became of each; for administrators. */
export function Trace({ path: [id] }: { path: readonly string[] }) {
  const wanted = useSignal(id ?? '');
  return (
    <>
      <Title>Trace</Title>
      <p class="quiet">
        Where the hub has sent the copies of a message, and what the networks have made of them. Its content is not
        shown.
      </p>
      <Form
        class="row"
        submit={() => {
          goTo(urlOf('dashboard', 'trace', wanted.value.trim()));
        }}
      >
        <div class="narrow">
          <Field
            label="Id of the message"
            value={wanted}
            placeholder="9b2f6a1e-52a4-4c1b-8d0e-7f3a5c9d1e42"
            autocomplete="off"
            autocapitalize="none"
            required
          />
        </div>
        <button class="button main end">Trace it</button>
      </Form>
      {id !== undefined && <Traced id={id} key={id} />}
    </>
  );
}

interface Found {
  /** null while nothing was decided. */
  route: GetRouteResponse | null;
  attempts: readonly Attempt[];
  /** How many dead letters are about it. */
  letters: number;
}

async function trace(message_id: string, signal: AbortSignal): Promise<Found> {
  const [route, { attempts }, { total }] = await Promise.all([
    client.router.getRoute({ message_id }, { signal }).catch((error: unknown) => {
      if (isRefused(error, 'ROUTE_NOT_FOUND')) return null;
      throw error;
    }),
    client.connectors.listAttempts({ message_id }, { signal }),
    client.operations.listDeadLetters({ message_id, limit: 1 }, { signal }),
  ]);
  return { route, attempts, letters: total };
}

function Traced({ id }: { id: string }) {
  const found = useLoaded((signal) => trace(id, signal));
  return (
    <Shown of={found} what="the message">
      {({ route, attempts, letters }) => (
        <>
          <dl class="facts">
            <dt>Routed</dt>
            <dd>
              {route === null ? 'Not so far; or there is no such message' : fullTime(route.routed_at)}
              {route !== null && route.rejected_reason !== '' && (
                <>
                  : <Mark is="bad">{route.rejected_reason}</Mark>
                </>
              )}
            </dd>
            {route !== null && (
              <>
                <dt>Conversation</dt>
                <dd class="id">{route.conversation_id}</dd>
              </>
            )}
            <dt>Dead letters</dt>
            <dd>
              {letters === 0 ? (
                'None'
              ) : (
                <a
                  href={`${urlOf('dashboard', 'dead-letters')}?${new URLSearchParams({ state: 'all', message: id }).toString()}`}
                >
                  {numberOf(letters)}
                </a>
              )}
            </dd>
          </dl>
          {route !== null && route.deliveries.length > 0 && (
            <Table label="Copies" heads={['Recipient', 'Channel', 'Topic', 'Outcome', '#Attempts', 'Ended']}>
              {route.deliveries.map(({ recipient_id, channel, topic }) => (
                <tr key={`${recipient_id} ${channel}`}>
                  <th scope="row" class="id">
                    {recipient_id}
                  </th>
                  <td>{channel}</td>
                  <td>{topic}</td>
                  <Ended
                    attempt={attempts.find((each) => each.recipient_id === recipient_id && each.channel === channel)}
                  />
                </tr>
              ))}
            </Table>
          )}
        </>
      )}
    </Shown>
  );
}

/** How a delivery has ended, as its connector has recorded it. */
function Ended({ attempt }: { attempt: Attempt | undefined }) {
  if (attempt === undefined) {
    return (
      <>
        <td>On its way</td>
        <td class="number" />
        <td />
      </>
    );
  }
  const { delivered, error, attempts, ended_at } = attempt;
  return (
    <>
      <td class="free">
        <Mark is={delivered ? 'good' : 'bad'}>{delivered ? 'Delivered' : 'Failed'}</Mark>
        {error !== '' && <span class="quiet small"> {error}</span>}
      </td>
      <td class="number">{numberOf(attempts)}</td>
      <td>
        <time dateTime={ended_at}>{fullTime(ended_at)}</time>
      </td>
    </>
  );
}
