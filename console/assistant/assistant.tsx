import { useEffect } from 'preact/hooks';
import { Empty } from '../shell/components.tsx';
import { AddIcon, TasksIcon } from '../shell/icons.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { isReachable } from '../shell/session.ts';
import { chatOf } from './chat.ts';
import { Conversation } from './conversation.tsx';
import { listError, loadNewest } from './conversations.ts';
import { ConversationList } from './list.tsx';
import { questions } from './questions.ts';
import { Tasks } from './tasks.tsx';

/**
 * `/console/assistant`: the list, and beside it where a conversation begins, which is `/new` too. Beside the list: `/new/<key>`, a conversation
 * whose first question is not accepted yet; `/<id>`, a conversation; `/tasks`, the tasks that the assistant keeps.
 */
export function Assistant({ path: [view, key] }: { path: readonly string[] }) {
  useEffect(() => void loadNewest(), []);
  useEffect(() => {
    if (isReachable.value && listError.peek() !== undefined) void loadNewest();
  }, [isReachable.value]);
  const name = view === undefined ? 'new' : view === 'new' ? (key ?? 'new') : view;
  const isId = /^\d+$/.test(name);
  /** Its question was accepted before a reload, and is in the list. */
  const isGone = view === 'new' && key !== undefined && questions.value.every((question) => question.key !== key);
  useEffect(() => {
    if (isGone) goTo(urlOf('assistant'), { replace: true });
  }, [isGone]);
  return (
    <div class={view === undefined ? 'assistant panes' : 'assistant panes with-conversation'}>
      <section class="list" aria-label="Conversations">
        <header class="row apart">
          <h2 class="part-title">Assistant</h2>
          <span class="row">
            <a
              class="button plain icon"
              href={urlOf('assistant', 'tasks')}
              aria-label="Tasks"
              aria-current={view === 'tasks' ? 'page' : undefined}
            >
              <TasksIcon />
            </a>
            <a class="button icon" href={urlOf('assistant', 'new')} aria-label="New conversation">
              <AddIcon />
            </a>
          </span>
        </header>
        <ConversationList chosen={isId ? Number(name) : undefined} />
      </section>
      {view === 'tasks' ? (
        <Tasks />
      ) : view === undefined || view === 'new' || isId ? (
        <Shown name={name} />
      ) : (
        <Empty title="There is nothing here">
          <a href={urlOf('assistant')}>Go to your conversations</a>
        </Empty>
      )}
    </div>
  );
}

/** A conversation keeps what it shows when it gets its id: the key is its own, and not that of its URL. */
function Shown({ name }: { name: string }) {
  const chat = chatOf(name);
  return <Conversation key={chat.number} chat={chat} />;
}
