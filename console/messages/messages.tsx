import { Empty } from '../shell/components.tsx';
import { AddIcon } from '../shell/icons.tsx';
import { urlOf } from '../shell/router.ts';
import { Conversation } from './conversation.tsx';
import { Details } from './details.tsx';
import { ConversationList } from './list.tsx';
import { Members } from './members.tsx';
import { NewConversation } from './new-conversation.tsx';

/**
 * `/console/messages`: the list. Beside it: `/new`, to begin a conversation; `/<id>`, a conversation; `/<id>/people`, with those who are in
 * it; `/<id>/<message id>`, with what became of a message.
 */
export function Messages({ path: [id, beside] }: { path: readonly string[] }) {
  const columns = [
    'messages panes',
    ...(id === undefined ? [] : ['with-conversation']),
    ...(beside === undefined ? [] : ['with-side']),
  ];
  return (
    <div class={columns.join(' ')}>
      <section class="list" aria-label="Conversations">
        <header class="row apart">
          <h2 class="part-title">Messages</h2>
          <a class="button icon" href={urlOf('messages', 'new')} aria-label="New conversation">
            <AddIcon />
          </a>
        </header>
        <ConversationList chosen={id} />
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
