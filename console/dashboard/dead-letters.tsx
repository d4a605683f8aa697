import { useSignal } from '@preact/signals';
import type { DeadLetter, ReplayDeadLettersRequest, ReplayDeadLettersResponse } from '#client/operations';
import { Empty, Failure, Field, Form, useAction } from '../shell/components.tsx';
import { goTo, query, urlOf } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Confirm, Json, Mark, Table, Title } from './fields.tsx';
import { countOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices, pageAsked, Pages, urlWith } from './paging.tsx';

const states = [
  ['waiting', 'Waiting'],
  ['replayed', 'Replayed'],
  ['all', 'All'],
] as const;

/** How many a single call replays at the most. */
const mostReplayed = 500;
/** Earlier than any: the API wants to be told which ones, and these are all. */
const beginning = '1970-01-01T00:00:00Z';

/** `/console/dashboard/dead-letters`: events that could not be handled, for administrators; `/<id>`: one of them. */
export function DeadLetters({ path: [id] }: { path: readonly string[] }) {
  return id === undefined ? <DeadLetterList /> : <OneDeadLetter id={id} key={id} />;
}

function DeadLetterList() {
  const state = chosenOf('state', states);
  const message = query.value.get('message') ?? '';
  const page = pageAsked();
  const letters = useLoaded(
    (signal) =>
      client.operations.listDeadLetters(
        { ...page, ...(state === 'all' ? {} : { state }), ...(message === '' ? {} : { message_id: message }) },
        { signal },
      ),
    [state, message, page.offset],
  );
  const chosen = useSignal<ReadonlySet<string>>(new Set());
  const asked = useSignal<ReplayDeadLettersRequest | undefined>(undefined);
  const result = useSignal<ReplayDeadLettersResponse | undefined>(undefined);
  const found = letters.value.value?.dead_letters ?? [];
  // Those of another page are not replayed by mistake.
  const ids = found.map(({ id }) => id).filter((id) => chosen.value.has(id));
  return (
    <>
      <Title
        beside={
          <button type="button" class="button" onClick={() => void letters.load()}>
            Refresh
          </button>
        }
      >
        Dead letters
      </Title>
      <p class="quiet">
        Events that could not be handled. Nothing of them is lost: once the cause is gone, they are replayed, and what
        was delivered is not delivered again.
      </p>
      <div class="row apart">
        <Choices label="State" name="state" choices={states} />
        <MessageField />
      </div>
      {result.value !== undefined && (
        <p class="notice" role="status">
          {resultWords(result.value)}
        </p>
      )}
      <Shown of={letters} what="the dead letters">
        {({ dead_letters, total }) =>
          total === 0 ? (
            <Empty title={state === 'waiting' ? 'No dead letters wait' : 'No dead letters'}>
              <p>Everything could be handled.</p>
            </Empty>
          ) : (
            <>
              <div class="row">
                <button
                  type="button"
                  class="button main"
                  disabled={ids.length === 0}
                  onClick={() => (asked.value = { ids })}
                >
                  Replay those chosen ({ids.length})
                </button>
                {state === 'waiting' && (
                  <button
                    type="button"
                    class="button"
                    onClick={() =>
                      (asked.value = {
                        limit: mostReplayed,
                        ...(message === '' ? { from: beginning } : { message_id: message }),
                      })
                    }
                  >
                    Replay all {message !== '' && 'of this message '}that wait
                  </button>
                )}
              </div>
              <Table label="Dead letters" heads={['Choose', 'Failed', 'Reason', 'About', 'Topic', 'State']}>
                {dead_letters.map((letter) => (
                  <Row
                    key={letter.id}
                    of={letter}
                    isChosen={chosen.value.has(letter.id)}
                    choose={(isChosen) => {
                      const next = new Set(chosen.value);
                      if (isChosen) next.add(letter.id);
                      else next.delete(letter.id);
                      chosen.value = next;
                    }}
                  />
                ))}
              </Table>
              <Pages total={total} of="dead letters" />
            </>
          )
        }
      </Shown>
      {asked.value !== undefined && (
        <Replay
          request={asked.value}
          close={() => (asked.value = undefined)}
          done={(replayed) => {
            result.value = replayed;
            chosen.value = new Set();
            void letters.load();
          }}
        />
      )}
    </>
  );
}

function MessageField() {
  const id = useSignal(query.value.get('message') ?? '');
  return (
    <Form
      class="row"
      submit={() => {
        const wanted = id.value.trim();
        goTo(urlWith({ message: wanted === '' ? undefined : wanted, page: undefined }));
      }}
    >
      <Field label="Of the message" value={id} placeholder="Id" autocomplete="off" autocapitalize="none" />
      <button class="button end">Show</button>
    </Form>
  );
}

function Row({
  of: letter,
  isChosen,
  choose,
}: {
  of: DeadLetter;
  isChosen: boolean;
  choose: (isChosen: boolean) => void;
}) {
  const { id, failed_at, reason, attempts, message_id, channel, topic, group } = letter;
  return (
    <tr>
      <td>
        <input
          type="checkbox"
          class="check"
          aria-label={`Choose the one of ${fullTime(failed_at)}`}
          checked={isChosen}
          onChange={({ currentTarget }) => choose(currentTarget.checked)}
        />
      </td>
      <td>
        <a href={urlOf('dashboard', 'dead-letters', id)}>
          <time dateTime={failed_at}>{fullTime(failed_at)}</time>
        </a>
      </td>
      <td class="free">
        {reason} <span class="quiet small">({countOf(attempts, 'attempt')})</span>
      </td>
      <td class="id">
        {message_id === '' ? 'No known message' : <a href={urlOf('dashboard', 'trace', message_id)}>{message_id}</a>}
        {channel !== '' && ` over ${channel}`}
      </td>
      <td>
        {topic}
        <br />
        <span class="quiet small">{group}</span>
      </td>
      <td>
        <State of={letter} />
      </td>
    </tr>
  );
}

function State({ of: { state, replayed_at, replayed_by } }: { of: DeadLetter }) {
  if (state === 'waiting') return <Mark is="warn">Waiting</Mark>;
  return (
    <Mark is="quiet">
      Replayed{replayed_by !== '' && ` by ${replayed_by}`}
      {replayed_at !== null && `, ${fullTime(replayed_at)}`}
    </Mark>
  );
}

function Replay({
  request,
  close,
  done,
}: {
  request: ReplayDeadLettersRequest;
  close: () => void;
  done: (result: ReplayDeadLettersResponse) => void;
}) {
  return (
    <Confirm
      title={
        request.ids === undefined ? 'Replay all that wait?' : `Replay ${countOf(request.ids.length, 'dead letter')}?`
      }
      verb="Replay"
      work={async () => done(await client.operations.replayDeadLetters(request))}
      close={close}
    >
      <p>
        Deliveries that failed begin again, with a new deadline. If their cause is not gone, they fail again, and there
        are new dead letters.
      </p>
      {request.ids === undefined && <p>At most {mostReplayed} are replayed at once, the oldest first.</p>}
    </Confirm>
  );
}

/** What a replay has come to. */
export function resultWords({ replayed, messages, settled, open, remaining }: ReplayDeadLettersResponse): string {
  return [
    `${countOf(replayed, 'dead letter')} replayed: ${countOf(messages, 'message')} ${messages === 1 ? 'begins' : 'begin'} again.`,
    ...(settled > 0 ? [`${countOf(settled, 'other has', 'others have')} nothing left to do.`] : []),
    ...(open > 0
      ? [`${countOf(open, 'is', 'are')} of messages that are still open: replay them when these have ended.`]
      : []),
    ...(remaining > 0 ? [`${countOf(remaining, 'still waits', 'still wait')}.`] : []),
  ].join(' ');
}

function OneDeadLetter({ id }: { id: string }) {
  const letter = useLoaded((signal) => client.operations.getDeadLetter({ id }, { signal }));
  const result = useSignal<ReplayDeadLettersResponse | undefined>(undefined);
  const action = useAction();
  const isAsking = useSignal(false);
  return (
    <>
      <Title back={{ url: urlOf('dashboard', 'dead-letters'), title: 'the dead letters' }}>Dead letter</Title>
      {result.value !== undefined && (
        <p class="notice" role="status">
          {resultWords(result.value)}
        </p>
      )}
      <Failure of={action} />
      <Shown of={letter} what="the dead letter">
        {({ dead_letter: found, decoded }) => (
          <>
            <dl class="facts">
              <dt>Reason</dt>
              <dd>{found.reason}</dd>
              <dt>State</dt>
              <dd>
                <State of={found} />
              </dd>
              <dt>Failed</dt>
              <dd>
                {fullTime(found.failed_at)}, after {countOf(found.attempts, 'attempt')}
              </dd>
              <dt>Event</dt>
              <dd>{found.event_type}</dd>
              <dt>Topic</dt>
              <dd>
                {found.topic}, partition {found.partition}, group {found.group}
              </dd>
              <dt>Message</dt>
              <dd class="id">
                {found.message_id === '' ? (
                  'Unknown'
                ) : (
                  <a href={urlOf('dashboard', 'trace', found.message_id)}>{found.message_id}</a>
                )}
              </dd>
              {found.channel !== '' && (
                <>
                  <dt>Channel</dt>
                  <dd>{found.channel}</dd>
                </>
              )}
              <dt>Conversation</dt>
              <dd class="id">{found.key}</dd>
              <dt>Request</dt>
              <dd class="id">{found.request_id}</dd>
            </dl>
            {found.state === 'waiting' && (
              <div>
                <button type="button" class="button main" onClick={() => (isAsking.value = true)}>
                  Replay
                </button>
              </div>
            )}
            <section class="stack">
              <h3>Content</h3>
              {decoded === null ? (
                <p class="quiet">It can’t be decoded, or has more than 1 MiB.</p>
              ) : (
                <Json label="Content of the event" value={decoded} />
              )}
            </section>
          </>
        )}
      </Shown>
      {isAsking.value && (
        <Replay
          request={{ ids: [id] }}
          close={() => (isAsking.value = false)}
          done={(replayed) => {
            result.value = replayed;
            void letter.load();
          }}
        />
      )}
    </>
  );
}
