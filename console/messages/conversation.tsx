import { useComputed, useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { Empty, Failed, Loading } from '../shell/components.tsx';
import { wordsFor } from '../shell/errors.ts';
import { BackIcon, CloseIcon, DownIcon, FileIcon, PersonIcon } from '../shell/icons.tsx';
import { epoch, isLive, onEvent } from '../shell/live.ts';
import { urlOf } from '../shell/router.ts';
import { client, isReachable, me } from '../shell/session.ts';
import { chosenChannels, Composer } from './composer.tsx';
import { known, loadOne, noteRead, titleOf, type Known } from './conversations.ts';
import { sizeOf } from './files.ts';
import { MessageItem, MissingItem, WaitingItem } from './message.tsx';
import { onAccepted, outbox } from './outbox.ts';
import { nameOf } from './people.ts';
import { Timeline } from './timeline.ts';
import { areSameDay, dayOf } from '../shell/times.ts';
import { whoWrites } from './typing.ts';
import { cancel, hasFile, pause, resume, upload, uploads } from './uploads.ts';
import { useVirtualList } from './virtual.ts';

/** Characters of a message that are read out when it comes. */
const saidAtOnce = 300;

/** A conversation: its messages, and where one writes. */
export function Conversation({ id }: { id: string }) {
  const error = useSignal<unknown>(undefined);
  const timeline = useMemo(() => new Timeline(id), [id]);
  const found = known.value.get(id);
  const load = () => {
    error.value = undefined;
    if (known.peek().get(id) === undefined) loadOne(id).catch((failure: unknown) => (error.value = failure));
    void timeline.begin();
  };
  /** What has come since, for those who hear the page. */
  const said = useSignal('');
  useEffect(
    () =>
      onEvent((event) => {
        timeline.apply(event);
        const message = event.message_accepted?.message;
        if (message?.conversation_id !== id || message.from === me()) return;
        const { type, text, filename } = message.payload;
        said.value = `${message.sender.username}: ${type === 'file' ? filename : text.slice(0, saidAtOnce)}`;
      }),
    [timeline],
  );
  useEffect(() => {
    if (isLive.value) load();
  }, [timeline, isLive.value]);
  useEffect(() => {
    if (isReachable.value && (error.peek() !== undefined || timeline.error.peek() !== undefined)) load();
  }, [isReachable.value]);
  useEffect(() => {
    if (epoch.value > 0) void timeline.reset();
  }, [epoch.value]);
  useEffect(() => {
    // The event brings it. Where no event comes, it is looked for.
    let timer: ReturnType<typeof setTimeout>;
    onAccepted((conversation) => {
      if (conversation !== id) return;
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (outbox.peek().some(({ request, state }) => request.conversation_id === id && state === 'accepted')) {
          void timeline.begin();
        }
      }, 3_000);
    });
    return () => clearTimeout(timer);
  }, [timeline]);

  if (found === undefined) {
    if (error.value === undefined) return <Loading what="the conversation" />;
    return <Failed what="the conversation" error={error.value} again={load} />;
  }
  return (
    <section
      class="conversation"
      aria-label={titleOf(found.conversation)}
      key={id}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        const channels = chosenChannels(id);
        if (channels.length === 0) return;
        for (const file of event.dataTransfer?.files ?? []) upload(id, channels, file);
      }}
    >
      <Header known={found} />
      <p class="hidden-text" role="status">
        {said}
      </p>
      <MessageList known={found} timeline={timeline} />
    </section>
  );
}

function Header({ known: { conversation } }: { known: Known }) {
  const { conversation_id: id, members, type } = conversation;
  const writing = whoWrites(id);
  return (
    <header class="row">
      <a class="button plain icon back" href={urlOf('messages')} aria-label="Back to the conversations">
        <BackIcon />
      </a>
      <div class="heading">
        <h2 dir="auto">{titleOf(conversation)}</h2>
        <p class="quiet small" role="status">
          {writing.length > 0
            ? `${writing.map(nameOf).join(', ')} ${writing.length === 1 ? 'is' : 'are'} writing…`
            : type === 'group'
              ? `${members.length} members`
              : 'Private'}
        </p>
      </div>
      <a class="button plain icon" href={urlOf('messages', id, 'people')} aria-label="Who is in this conversation">
        <PersonIcon />
      </a>
    </header>
  );
}

/** So many messages that came since one read last need not fit onto the page. */
const manyUnread = 5;
/** For how long something has to be seen to count as read, in milliseconds. */
const readAfter = 400;

function MessageList({ known: found, timeline }: { known: Known; timeline: Timeline }) {
  const { conversation, read } = found;
  const id = conversation.conversation_id;
  const scroller = useRef<HTMLDivElement>(null);
  // All that is shown of it may change at any time.
  void timeline.version.value;
  const newest = timeline.newest.value;
  const waiting = useComputed(() => outbox.value.filter(({ request }) => request.conversation_id === id)).value;
  const own = uploads.value.filter((each) => each.conversation === id);
  const { oldest } = timeline;
  /** How many messages there are at the hub: those that wait are behind them. */
  const stored = Math.max(0, (newest ?? 0) - oldest + 1);
  const count = stored + waiting.length;
  /** Up to which message one had read when the conversation was opened: the line is above what was new then. */
  const readBefore = useMemo(() => known.peek().get(id)?.read.get(me()) ?? 0, [id, found.isSummed]);

  const list = useVirtualList({
    count,
    scroller: () => scroller.current,
    keyOf: (index) => (index < stored ? timeline.keyOf(oldest + index) : waiting[index - stored]!.request.message_id),
    estimate: () => 72,
  });
  const items = list.getVirtualItems();
  const first = oldest + (items[0]?.index ?? 0);
  const last = Math.min(oldest + (items.at(-1)?.index ?? -1), newest ?? 0);

  const isPlaced = useRef(false);
  useEffect(() => {
    if (newest === undefined || isPlaced.current) return;
    isPlaced.current = true;
    // Where there is more than can be seen at once, one reads on where one was.
    if (readBefore > 0 && newest - readBefore > manyUnread)
      list.scrollToIndex(Math.max(0, readBefore - oldest), { align: 'start' });
    else list.scrollToEnd();
  }, [newest === undefined]);
  useEffect(() => {
    if (newest !== undefined && last >= first && isPlaced.current) timeline.need(first, last);
  }, [first, last, newest]);

  useReading(id, timeline, scroller);

  if (newest === undefined) {
    return timeline.error.value === undefined ? (
      <Loading what="the messages" />
    ) : (
      <Failed what="the messages" error={timeline.error.value} again={() => void timeline.begin()} />
    );
  }
  const isBelow = list.range !== null && list.range.endIndex < count - 1;
  return (
    <>
      <div class="scroller" ref={scroller} tabIndex={0} role="region" aria-label="Messages">
        {count === 0 && (
          <Empty title="No messages yet">
            <p>Write the first one.</p>
          </Empty>
        )}
        <div
          class="all"
          role="feed"
          aria-busy={last >= oldest && timeline.at(last) === undefined}
          style={{ height: `${list.getTotalSize()}px` }}
        >
          {items.map((item) => {
            const seq = oldest + item.index;
            const message = timeline.at(seq);
            const entry = seq > newest ? waiting[seq - newest - 1] : undefined;
            const before = timeline.at(seq - 1);
            const isNewDay =
              message !== undefined && (before === undefined || !areSameDay(before.created_at, message.created_at));
            return (
              <div
                key={item.key}
                class="item"
                data-index={item.index}
                ref={list.measureElement}
                style={{ transform: `translateY(${item.start}px)` }}
              >
                {isNewDay && (seq === oldest || before !== undefined) && <p class="day">{dayOf(message.created_at)}</p>}
                {seq === readBefore + 1 && readBefore > 0 && seq <= newest && message?.from !== me() && (
                  <p class="new-line">New</p>
                )}
                {entry !== undefined ? (
                  <WaitingItem entry={entry} />
                ) : message === undefined ? (
                  <MissingItem />
                ) : (
                  <MessageItem
                    message={message}
                    timeline={timeline}
                    isGroup={conversation.type === 'group'}
                    isFirst={before?.from !== message.from || isNewDay}
                    readBy={readersOf(read, message.from, seq)}
                  />
                )}
              </div>
            );
          })}
        </div>
        {isBelow && !list.isAtEnd() && (
          <button type="button" class="button to-end" onClick={() => list.scrollToEnd()}>
            <DownIcon />
            To the newest
          </button>
        )}
      </div>
      {timeline.error.value !== undefined && (
        <p class="notice bad" role="alert">
          {wordsFor(timeline.error.value)}
          <button type="button" class="button" onClick={() => timeline.need(first, last)}>
            Try again
          </button>
        </p>
      )}
      {own.length > 0 && (
        <ul class="uploads" aria-label="Files on their way">
          {own.map((each) => (
            <UploadItem key={each.id} upload={each} />
          ))}
        </ul>
      )}
      <Composer key={id} conversation={id} sent={() => list.scrollToEnd()} />
    </>
  );
}

function readersOf(read: ReadonlyMap<string, number>, sender: string, seq: number): number {
  let count = 0;
  for (const [user, upTo] of read) if (user !== sender && upTo >= seq) count += 1;
  return count;
}

/** Tells the hub how far one has read: up to the lowest message that is seen, while the page is. */
function useReading(id: string, timeline: Timeline, scroller: { current: HTMLElement | null }): void {
  useEffect(() => {
    let seen = 0;
    /** What the hub knows. */
    let told = known.peek().get(id)?.read.get(me()) ?? 0;
    let isTelling = false;
    const look = () => {
      const box = scroller.current?.getBoundingClientRect();
      if (box === undefined || document.visibilityState !== 'visible') return;
      for (const item of scroller.current!.querySelectorAll<HTMLElement>('.item')) {
        const { top } = item.getBoundingClientRect();
        const seq = timeline.oldest + Number(item.dataset['index']);
        if (top < box.bottom && top > box.top - box.height && timeline.at(seq) !== undefined)
          seen = Math.max(seen, seq);
      }
      if (seen <= told || isTelling) return;
      noteRead(id, me(), seen);
      isTelling = true;
      client.message
        .markRead({ conversation_id: id, seq: seen })
        .then(
          ({ seq }) => (told = seq),
          // It is told again.
          () => {},
        )
        .finally(() => (isTelling = false));
    };
    const timer = setInterval(look, readAfter);
    return () => clearInterval(timer);
  }, [id]);
}

function UploadItem({
  upload: { id, conversation, channels, name, size, state, done, reason },
}: {
  upload: (typeof uploads.value)[number];
}) {
  const chooser = useRef<HTMLInputElement>(null);
  const words = {
    uploading: `${sizeOf(done)} of ${sizeOf(size)}`,
    verifying: 'Being verified…',
    paused: hasFile(id) ? 'Paused' : 'Choose the file again to go on',
    failed: reason ?? 'Failed',
  }[state];
  const goOn = () => (hasFile(id) ? resume(id) : chooser.current?.click());
  return (
    <li class="upload">
      <FileIcon />
      <span class="name" dir="auto">
        {name}
      </span>
      <span class={state === 'failed' ? 'wrong small' : 'quiet small'}>{words}</span>
      {state === 'uploading' || state === 'verifying' ? (
        <button type="button" class="button plain" onClick={() => pause(id)} aria-label={`Pause ${name}`}>
          Pause
        </button>
      ) : (
        <button type="button" class="button plain" onClick={goOn} aria-label={`Go on with ${name}`}>
          Go on
        </button>
      )}
      <button type="button" class="button plain icon" onClick={() => cancel(id)} aria-label={`Cancel ${name}`}>
        <CloseIcon />
      </button>
      <progress value={done} max={Math.max(size, 1)} aria-label={`Upload of ${name}`} />
      <input
        ref={chooser}
        type="file"
        hidden
        aria-label={`Choose ${name} again`}
        onChange={({ currentTarget }) => {
          const file = currentTarget.files?.[0];
          if (file !== undefined) upload(conversation, channels, file);
          currentTarget.value = '';
        }}
      />
    </li>
  );
}
