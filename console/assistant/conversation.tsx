import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { Dialog, Failed, Failure, Field, Form, Loading, useAction } from '../shell/components.tsx';
import { wordsFor } from '../shell/errors.ts';
import { BackIcon, DeleteIcon, DownIcon, EditIcon } from '../shell/icons.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { isReachable } from '../shell/session.ts';
import { AnswerItem } from './answer.tsx';
import type { Chat } from './chat.ts';
import { approves, Composer } from './composer.tsx';
import { known, remove, rename } from './conversations.ts';
import { QuestionItem, WaitingItem } from './question.tsx';
import type { Question } from './questions.ts';

/** A conversation with the assistant, or where one begins. */
export function Conversation({ chat }: { chat: Chat }) {
  // It gets its id, and all that is shown of it changes.
  void chat.version.value;
  const { id } = chat;
  const title = id === undefined ? 'New conversation' : (known.value.get(id)?.title ?? 'Conversation');
  useEffect(() => {
    chat.open();
    const look = () => {
      if (document.visibilityState === 'visible') void chat.load();
    };
    document.addEventListener('visibilitychange', look);
    return () => {
      document.removeEventListener('visibilitychange', look);
      chat.close();
    };
  }, [chat]);
  useEffect(() => {
    if (isReachable.value && chat.error.peek() !== undefined) void chat.load();
  }, [chat, isReachable.value]);
  return (
    <section class="conversation" aria-label={title}>
      <header class="row">
        <a class="button plain icon back" href={urlOf('assistant')} aria-label="Back to the conversations">
          <BackIcon />
        </a>
        <div class="heading">
          <h2 dir="auto">{title}</h2>
        </div>
        {id !== undefined && <Changes id={id} title={title} />}
      </header>
      <p class="hidden-text" role="status">
        {chat.said}
      </p>
      {chat.rows !== undefined ? (
        <Exchange chat={chat} />
      ) : chat.error.value === undefined ? (
        <Loading what="the conversation" />
      ) : (
        <Failed what="the conversation" error={chat.error.value} again={() => void chat.load()} />
      )}
    </section>
  );
}

/** Another title for a conversation, or its end. */
function Changes({ id, title }: { id: number; title: string }) {
  const asked = useSignal<'title' | 'end' | undefined>(undefined);
  const close = () => (asked.value = undefined);
  return (
    <>
      <button
        type="button"
        class="button plain icon"
        aria-label="Change the title"
        onClick={() => (asked.value = 'title')}
      >
        <EditIcon />
      </button>
      <button
        type="button"
        class="button plain icon"
        aria-label="Delete the conversation"
        onClick={() => (asked.value = 'end')}
      >
        <DeleteIcon />
      </button>
      {asked.value === 'title' && <Retitle id={id} title={title} close={close} />}
      {asked.value === 'end' && <End id={id} close={close} />}
    </>
  );
}

function Retitle({ id, title, close }: { id: number; title: string; close: () => void }) {
  const value = useSignal(title);
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      await rename(id, value.value.trim());
      close();
    });
  return (
    <Dialog title="Change the title" close={close}>
      <Form submit={submit}>
        <Field label="Title" value={value} autocomplete="off" required wrong={action.wrong('title')} />
        <Failure of={action} fields={['title']} />
        <button class="button main" disabled={action.isRunning.value}>
          Change
        </button>
      </Form>
    </Dialog>
  );
}

function End({ id, close }: { id: number; close: () => void }) {
  const action = useAction();
  const end = () =>
    action.run(async () => {
      await remove(id);
      goTo(urlOf('assistant'), { replace: true });
    });
  return (
    <Dialog title="Delete this conversation?" close={close}>
      <div class="stack">
        <p>All that was said in it is deleted. What the assistant has done for you stays done.</p>
        <Failure of={action} />
        <div class="row">
          <button type="button" class="button danger" disabled={action.isRunning.value} onClick={() => void end()}>
            Delete
          </button>
          <button type="button" class="button" onClick={close}>
            Keep
          </button>
        </div>
      </div>
    </Dialog>
  );
}

/** Pixels from the end within which one is at the end. */
const endRoom = 40;
/** Pixels from the beginning within which what was said before is loaded. */
const beginningRoom = 200;

/** What was said, and where one writes. */
function Exchange({ chat }: { chat: Chat }) {
  void chat.version.value;
  const { rows = [], turn, questions } = chat;
  const scroller = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const earlier = useAction();
  /** Whoever reads at the end stays there while an answer grows; whoever reads further up stays where they are. */
  const isAtEnd = useRef(true);
  const isBelow = useSignal(false);
  /** How far the end was away before older messages came above. */
  const distance = useRef<number | undefined>(undefined);
  const lastTop = useRef(0);

  const look = () => {
    const box = scroller.current;
    if (box === null) return;
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    // Whoever moves up, by however little, wants to read there.
    isAtEnd.current = left < (box.scrollTop < lastTop.current ? 2 : endRoom);
    lastTop.current = box.scrollTop;
    isBelow.value = !isAtEnd.current;
    if (chat.hasEarlier && box.scrollTop < beginningRoom && earlier.error.peek() === undefined) loadEarlier();
  };
  const keepPlace = () => {
    const box = scroller.current;
    if (box === null) return;
    if (distance.current !== undefined) box.scrollTop = box.scrollHeight - distance.current;
    else if (isAtEnd.current) box.scrollTop = box.scrollHeight;
    distance.current = undefined;
    lastTop.current = box.scrollTop;
    isBelow.value = box.scrollHeight - box.scrollTop - box.clientHeight >= endRoom;
  };
  const toEnd = () => {
    isAtEnd.current = true;
    keepPlace();
  };
  const loadEarlier = () =>
    void earlier.run(() =>
      chat.loadEarlier(() => {
        const box = scroller.current!;
        distance.current = box.scrollHeight - box.scrollTop;
      }),
    );
  useLayoutEffect(keepPlace);
  useEffect(() => {
    // A tool call that is opened makes it longer. That event does not bubble.
    const box = scroller.current!;
    box.addEventListener('toggle', look, true);
    // A phone's keyboard takes room.
    const resizes = new ResizeObserver(keepPlace);
    resizes.observe(box);
    return () => {
      box.removeEventListener('toggle', look, true);
      resizes.disconnect();
    };
  }, [chat]);

  /** What was pressed may go away with that: the focus goes to where one writes. */
  const goOn = () => field.current?.focus();
  const isBegun = turn?.id !== undefined;
  /** A question that is sent again says so itself, and an answer that is to be replaced stays until the other one has begun. */
  const isAwaited =
    turn?.replaces === undefined && questions.every(({ state, reason }) => state !== 'waiting' || reason === undefined);
  const isShown = (answer: number | undefined) => rows.some(({ id }) => id === answer);
  const waiting = questions.filter(({ answer }) => answer === undefined || !isShown(answer));
  const last = rows.at(-1);
  // In one list: an answer stays the same element from its beginning to its place in the history.
  const items = rows.flatMap((row) => {
    if (isBegun && row.id === turn.replaces) return [];
    if (row.role === 'user') {
      return (
        <li key={row.id}>
          <QuestionItem text={row.content} at={row.created_at} />
        </li>
      );
    }
    const own = questions.filter(({ answer }) => answer === row.id);
    return [
      ...own.map((question) => <Waiting key={question.key} question={question} chat={chat} />),
      <li key={row.id}>
        <AnswerItem
          chat={chat}
          row={row}
          turn={row.id === turn?.id ? turn : undefined}
          isLast={row === last && waiting.length === 0}
          grown={keepPlace}
          goOn={goOn}
        />
      </li>,
    ];
  });
  for (const question of waiting) items.push(<Waiting key={question.key} question={question} chat={chat} />);
  if (turn !== undefined && !isShown(turn.id) && (isBegun || isAwaited)) {
    items.push(
      <li key={turn.id ?? 'begun'}>
        <AnswerItem chat={chat} row={undefined} turn={turn} isLast grown={keepPlace} goOn={goOn} />
      </li>,
    );
  }
  return (
    <>
      <div class="scroller" ref={scroller} tabIndex={0} role="region" aria-label="What was said" onScroll={look}>
        {chat.hasEarlier && (
          <button
            type="button"
            class="button plain more"
            disabled={earlier.isRunning.value}
            onClick={() => loadEarlier()}
          >
            {earlier.isRunning.value ? 'Loading what was said before…' : 'Show what was said before'}
          </button>
        )}
        <Failure of={earlier} />
        {items.length === 0 && <Greeting chat={chat} goOn={goOn} />}
        <ol class="exchange">{items}</ol>
        {isBelow.value && (
          <button type="button" class="button to-end" onClick={toEnd}>
            <DownIcon />
            To the end
          </button>
        )}
      </div>
      {chat.error.value !== undefined && (
        <p class="notice bad" role="alert">
          {wordsFor(chat.error.value)}
          <button type="button" class="button" onClick={() => void chat.load()}>
            Try again
          </button>
        </p>
      )}
      {chat.failure.value !== undefined && (
        <p class="notice bad" role="alert">
          {wordsFor(chat.failure.value)}
          <button type="button" class="button plain" onClick={() => (chat.failure.value = undefined)}>
            Close
          </button>
        </p>
      )}
      <Composer chat={chat} field={field} asked={toEnd} />
    </>
  );
}

function Waiting({ question, chat }: { question: Question; chat: Chat }) {
  return (
    <li>
      <WaitingItem question={question} chat={chat} />
    </li>
  );
}

const suggestions: readonly string[] = [
  'Show me all my tasks',
  'Add a task to buy groceries',
  'Send ‘hi there’ to user2 on whatsapp',
];

/** Where nothing was said yet. */
function Greeting({ chat, goOn }: { chat: Chat; goOn: () => void }) {
  return (
    <div class="state">
      <h2>What can be done for you?</h2>
      <p>The assistant keeps your tasks, finds people, and reads and writes messages for you. It acts as you.</p>
      <ul class="row suggestions">
        {suggestions.map((text) => (
          <li key={text}>
            <button
              type="button"
              class="button"
              onClick={() => {
                chat.ask(text, approves.peek());
                goOn();
              }}
            >
              {text}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
