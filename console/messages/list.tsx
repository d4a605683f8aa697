import { Empty, Failed, Loading } from '../shell/components.tsx';
import { me } from '../shell/session.ts';
import { urlOf } from '../shell/router.ts';
import { inOrder, listError, load, titleOf, total, unreadOf, type Known } from './conversations.ts';
import { nameOf } from './people.ts';
import { briefTime, fullTime } from '../shell/times.ts';

/** The conversations, the one with the newest activity first. */
export function ConversationList({
  chosen,
}: {
  /** The id of the one that is shown. */
  chosen: string | undefined;
}) {
  const error = listError.value;
  const conversations = inOrder.value;
  if (conversations.length === 0) {
    if (error !== undefined) {
      return <Failed what="your conversations" error={error} again={() => void load({ anew: true })} />;
    }
    if (total.value === undefined) return <Loading what="your conversations" />;
    return (
      <Empty title="No conversations yet">
        <p>Begin one with somebody whose username you know.</p>
      </Empty>
    );
  }
  return (
    <>
      <ul class="conversations">
        {conversations.map((known) => (
          <li key={known.conversation.conversation_id}>
            <Entry known={known} isChosen={known.conversation.conversation_id === chosen} />
          </li>
        ))}
      </ul>
      {conversations.length < (total.value ?? 0) && (
        <button type="button" class="button plain more" onClick={() => void load()}>
          Show more
        </button>
      )}
    </>
  );
}

function Entry({ known, isChosen }: { known: Known; isChosen: boolean }) {
  const { conversation, last } = known;
  const unread = unreadOf(known);
  const title = titleOf(conversation);
  return (
    <a
      class="conversation-entry"
      href={urlOf('messages', conversation.conversation_id)}
      aria-current={isChosen ? 'true' : undefined}
      data-conversation={conversation.conversation_id}
    >
      <Initial of={title} isGroup={conversation.type === 'group'} />
      <span class="title" dir="auto">
        {title}
      </span>
      {last !== undefined && (
        <time class="when" dateTime={last.created_at} title={fullTime(last.created_at)}>
          {briefTime(last.created_at)}
        </time>
      )}
      <span class="preview" dir="auto">
        {last === undefined ? (known.isSummed ? 'No messages yet' : '…') : previewOf(known)}
      </span>
      {unread > 0 && (
        <span class="badge">
          {unread > 99 ? '99+' : unread}
          <span class="hidden-text"> unread</span>
        </span>
      )}
    </a>
  );
}

/** A text is cut: what is in the list need not hold 64 KiB. */
function previewOf({ conversation, last }: Known): string {
  const { payload, from } = last!;
  const text = payload.type === 'file' ? `File: ${payload.filename}` : payload.text.slice(0, 200);
  if (from === me()) return `You: ${text}`;
  return conversation.type === 'group' ? `${nameOf(from)}: ${text}` : text;
}

export function Initial({ of: name, isGroup }: { of: string; isGroup: boolean }) {
  const [first = '?'] = name.trim().toUpperCase();
  return (
    <span class={isGroup ? 'initial group' : 'initial'} aria-hidden="true">
      {first}
    </span>
  );
}
