import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { GetMessageResponse } from '#client/message';
import { Failed, Loading } from '../shell/components.tsx';
import { onEvent } from '../shell/live.ts';
import { client } from '../shell/session.ts';
import { known } from './conversations.ts';
import { TickIcon } from './message.tsx';
import { nameOf } from './people.ts';
import { Side } from './side.tsx';
import { channelTitle, statusWords } from './ticks.ts';
import { fullTime } from '../shell/times.ts';

/** A message's history, and its ledger: what became of each delivery. */
export function Details({ conversation, id }: { conversation: string; id: string }) {
  const message = useSignal<GetMessageResponse | undefined>(undefined);
  const error = useSignal<unknown>(undefined);
  const load = () => {
    error.value = undefined;
    client.message.getMessage({ message_id: id }).then(
      (found) => (message.value = found),
      (failure: unknown) => (error.value = failure),
    );
  };
  useEffect(() => {
    message.value = undefined;
    load();
    return onEvent(({ delivery_changed, reset }) => {
      if (delivery_changed?.message_id === id || reset !== undefined) load();
    });
  }, [id]);

  return (
    <Side title="Message" conversation={conversation}>
      {message.value !== undefined ? (
        <Found message={message.value} />
      ) : error.value === undefined ? (
        <Loading what="the message" />
      ) : (
        <Failed what="the message" error={error.value} again={load} />
      )}
    </Side>
  );
}

function Found({ message }: { message: GetMessageResponse }) {
  const read = known.value.get(message.conversation_id)?.read ?? new Map<string, number>();
  const readers = [...read].filter(([user, seq]) => user !== message.from && seq >= message.seq);
  return (
    <div class="stack">
      <dl class="facts">
        <dt>From</dt>
        <dd dir="auto">{message.sender.username}</dd>
        <dt>Status</dt>
        <dd>{statusWords[message.status]}</dd>
        <dt>Channels</dt>
        <dd>{message.channels.map(channelTitle).join(', ')}</dd>
        <dt>Position</dt>
        <dd>{message.seq}</dd>
        <dt>Read by</dt>
        <dd>{readers.length === 0 ? 'Nobody yet' : readers.map(([user]) => nameOf(user)).join(', ')}</dd>
        <dt>Id</dt>
        <dd class="id">{message.message_id}</dd>
      </dl>
      <section>
        <h3>History</h3>
        <ol class="history">
          {message.history.map(({ status, at, note }) => (
            <li key={`${status} ${at}`} class={`tick ${status}`}>
              <TickIcon status={status} />
              <span>
                {statusWords[status]}
                {note !== '' && <span class="quiet">: {note}</span>}
              </span>
              <time dateTime={at} class="quiet small">
                {fullTime(at)}
              </time>
            </li>
          ))}
        </ol>
      </section>
      <section>
        <h3>Deliveries</h3>
        <ul class="deliveries">
          {message.deliveries.map(({ recipient, channel, status, attempts, error, updated_at, next_attempt_at }) => (
            <li key={`${recipient} ${channel}`} class={`tick ${status}`}>
              <TickIcon status={status} />
              <span>
                <span dir="auto">{nameOf(recipient)}</span> over {channelTitle(channel)}: {statusWords[status]}
                {error !== '' && <span class="quiet"> ({error})</span>}
              </span>
              <span class="quiet small">
                {attempts === 1 ? '1 attempt' : `${attempts} attempts`}, {fullTime(updated_at)}
                {next_attempt_at !== null && `; next attempt ${fullTime(next_attempt_at)}`}
              </span>
            </li>
          ))}
        </ul>
      </section>
    </div>
  );
}
