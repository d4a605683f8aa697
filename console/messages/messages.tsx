import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { Empty } from '../shell/components.tsx';
import { AddIcon } from '../shell/icons.tsx';
import { epoch, isLive, onEvent } from '../shell/live.ts';
import { urlOf } from '../shell/router.ts';
import { Conversation } from './conversation.tsx';
import { apply, load } from './conversations.ts';
import { Details } from './details.tsx';
import { ConversationList } from './list.tsx';
import { Members } from './members.tsx';
import { NewConversation } from './new-conversation.tsx';
import { startOutbox } from './outbox.ts';
import { applyTyping } from './typing.ts';
import { startUploads, uploads } from './uploads.ts';

/**
 * `/console/messages`: the list. Beside it: `/new`, to begin a conversation; `/<id>`, a conversation; `/<id>/people`, with those who are in
 * it; `/<id>/<message id>`, with what became of a message.
 */
export function Messages({ path: [id, beside] }: { path: readonly string[] }) {
  const error = useSignal<unknown>(undefined);
  const reload = (how: { anew: boolean }) => {
    error.value = undefined;
    load(how).catch((failure: unknown) => (error.value = failure));
  };
  useEffect(
    () =>
      onEvent((event) => {
        apply(event);
        applyTyping(event);
      }),
    [],
  );
  useEffect(() => {
    // What is under way goes on while another part is shown.
    if (uploads.peek().length === 0) startUploads();
    return startOutbox();
  }, []);
  // Once events are told: what is loaded earlier could miss some.
  useEffect(() => {
    if (isLive.value) reload({ anew: true });
  }, [isLive.value, epoch.value]);

  const columns = [
    'messages',
    ...(id === undefined ? [] : ['with-conversation']),
    ...(beside === undefined ? [] : ['with-side']),
  ];
  return (
    <div class={columns.join(' ')}>
      <section class="list" aria-label="Conversations">
        <header class="row apart">
          <h1>Messages</h1>
          <a class="button icon" href={urlOf('messages', 'new')} aria-label="New conversation">
            <AddIcon />
          </a>
        </header>
        <ConversationList chosen={id} error={error.value} load={reload} />
      </section>
      {id === undefined ? (
        <Empty title="Choose a conversation">
          <a class="button" href={urlOf('messages', 'new')}>
            <AddIcon />
            Begin a new one
          </a>
        </Empty>
      ) : id === 'new' ? (
        <NewConversation />
      ) : (
        <Conversation id={id} key={id} />
      )}
      {id !== undefined && beside !== undefined && (
        <>{beside === 'people' ? <Members conversation={id} /> : <Details conversation={id} id={beside} />}</>
      )}
    </div>
  );
}
