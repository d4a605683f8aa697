import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Message } from '#client/message';
import { Failure, useAction } from '../shell/components.tsx';
import { DetailsIcon, FileIcon } from '../shell/icons.tsx';
import { urlOf } from '../shell/router.ts';
import { me } from '../shell/session.ts';
import { download, sizeOf } from './files.ts';
import { discard, sendAgain, type Waiting } from './outbox.ts';
import { channelStates, channelTitle, statusWords } from './ticks.ts';
import type { Timeline } from './timeline.ts';
import { clockTime, fullTime } from '../shell/times.ts';

/** One message of a conversation. What somebody has written is only ever text. */

export function MessageItem({
  message,
  timeline,
  isGroup,
  isFirst,
  readBy,
}: {
  message: Message;
  timeline: Timeline;
  isGroup: boolean;
  /** Whether the message before it is somebody else's. */
  isFirst: boolean;
  /** How many others have read it. */
  readBy: number;
}) {
  const { message_id, from, sender, payload, created_at, status } = message;
  const isMine = from === me();
  useEffect(() => {
    if (isMine && status === 'failed') void timeline.loadDeliveries(message_id);
  }, [isMine && status === 'failed']);
  return (
    <article class={isMine ? 'message mine' : 'message'} data-message={message_id}>
      {!isMine && isFirst && isGroup && (
        <p class="sender" dir="auto">
          {sender.username}
        </p>
      )}
      {payload.type === 'file' ? (
        <FileBody id={payload.file_id} name={payload.filename} size={payload.file_size} />
      ) : (
        <TextBody text={payload.text} />
      )}
      <footer>
        {isMine && <Ticks message={message} timeline={timeline} readBy={readBy} />}
        <span class="when">
          <time dateTime={created_at} title={fullTime(created_at)}>
            {clockTime(created_at)}
          </time>
          <a
            class="button plain details"
            href={urlOf('messages', message.conversation_id, message_id)}
            aria-label={`Details of the message of ${clockTime(created_at)}`}
          >
            <DetailsIcon />
          </a>
        </span>
      </footer>
    </article>
  );
}

/** Characters of a text that are shown at once. */
const shown = 3_000;

function TextBody({ text }: { text: string }) {
  const isWhole = useSignal(text.length <= shown);
  return (
    <>
      <p class="text" dir="auto">
        {isWhole.value ? text : `${text.slice(0, shown).toWellFormed()}…`}
      </p>
      {!isWhole.value && (
        <button type="button" class="button plain" onClick={() => (isWhole.value = true)}>
          Show all of it
        </button>
      )}
    </>
  );
}

function FileBody({ id, name, size }: { id: string; name: string; size: number }) {
  const action = useAction();
  const get = () =>
    action.run(async () => {
      try {
        await download(id, name, size);
      } catch (error) {
        // Nobody has chosen where to put it.
        if (!(error instanceof DOMException && error.name === 'AbortError')) throw error;
      }
    });
  return (
    <div class="file">
      <FileIcon />
      <span class="name" dir="auto">
        {name}
      </span>
      <span class="quiet small">{sizeOf(size)}</span>
      <button type="button" class="button" disabled={action.isRunning.value} onClick={() => void get()}>
        {action.isRunning.value ? 'Downloading…' : 'Download'}
        <span class="hidden-text"> {name}</span>
      </button>
      <Failure of={action} />
    </div>
  );
}

/** What has become of a message, by channel, and who has read it. */
function Ticks({ message, timeline, readBy }: { message: Message; timeline: Timeline; readBy: number }) {
  const states = channelStates(message, timeline.deliveriesOf(message.message_id)?.values() ?? []);
  return (
    <span class="ticks">
      {states.map(({ channel, status, delivered, total }) => (
        <span key={channel} class={`tick ${status}`} data-status={status}>
          <TickIcon status={status} />
          {channelTitle(channel)}
          {total > 1 && ` ${delivered}/${total}`}
          <span class="hidden-text"> {statusWords[status]}</span>
        </span>
      ))}
      {readBy > 0 && <span class="tick read">{message.to.length > 1 ? `Read by ${readBy}` : 'Read'}</span>}
    </span>
  );
}

const tickPaths = {
  accepted: ['M6 12l4 4 8-9'],
  in_transit: ['M4 12h14', 'M13 7l5 5-5 5'],
  delivered: ['M3 12l4 4 8-9', 'M11 16l1 1 9-10'],
  failed: ['M12 6v7', 'M12 17h.01'],
  waiting: ['M12 7v5l3 2', 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18'],
};

export function TickIcon({ status }: { status: keyof typeof tickPaths }) {
  return (
    <svg
      width="14"
      height="14"
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="2.5"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {tickPaths[status].map((d) => (
        <path key={d} d={d} />
      ))}
    </svg>
  );
}

/** A message that is not accepted yet. */
export function WaitingItem({ entry }: { entry: Waiting }) {
  const { request, file, state, reason, written_at } = entry;
  return (
    <article class={`message mine ${state}`} data-message={request.message_id}>
      {file === undefined ? (
        <TextBody text={request.payload.text ?? ''} />
      ) : (
        <div class="file">
          <FileIcon />
          <span class="name" dir="auto">
            {file.name}
          </span>
          <span class="quiet small">{sizeOf(file.size)}</span>
        </div>
      )}
      <footer>
        <span class="ticks">
          <span class={`tick ${state === 'refused' ? 'failed' : state}`} data-status={state}>
            <TickIcon status={state === 'refused' ? 'failed' : state} />
            {{ waiting: 'Not sent yet', accepted: 'Accepted', refused: 'Not taken' }[state]}
          </span>
        </span>
        <time dateTime={written_at} title={fullTime(written_at)}>
          {clockTime(written_at)}
        </time>
      </footer>
      {state === 'refused' && (
        <div class="notice bad" role="alert">
          <span>{reason}</span>
          <button type="button" class="button" onClick={() => sendAgain(request.message_id)}>
            Send again
          </button>
          <button type="button" class="button plain" onClick={() => discard(request.message_id)}>
            Discard
          </button>
        </div>
      )}
    </article>
  );
}

/** Where a message is that is not loaded yet. */
export function MissingItem() {
  return (
    <div class="message missing" aria-hidden="true">
      <span />
    </div>
  );
}
