import { Empty, Failed, Failure, Loading, useAction } from '../shell/components.tsx';
import { urlOf } from '../shell/router.ts';
import { briefTime, fullTime } from '../shell/times.ts';
import { inOrder, listError, loadMore, loadNewest, total } from './conversations.ts';

/** The conversations with the assistant, the one with the newest activity first. */
export function ConversationList({
  chosen,
}: {
  /** The id of the one that is shown. */
  chosen: number | undefined;
}) {
  const more = useAction();
  const error = listError.value;
  const conversations = inOrder.value;
  if (conversations.length === 0) {
    if (error !== undefined) return <Failed what="your conversations" error={error} again={() => void loadNewest()} />;
    if (total.value === undefined) return <Loading what="your conversations" />;
    return (
      <Empty title="No conversations yet">
        <p>Ask the assistant something: that begins one.</p>
      </Empty>
    );
  }
  return (
    <>
      <ul class="conversations">
        {conversations.map(({ id, title, updated_at }) => (
          <li key={id}>
            <a
              class="conversation-entry"
              href={urlOf('assistant', String(id))}
              aria-current={id === chosen ? 'true' : undefined}
            >
              <span class="title" dir="auto">
                {title}
              </span>
              <time class="when" dateTime={updated_at} title={fullTime(updated_at)}>
                {briefTime(updated_at)}
              </time>
            </a>
          </li>
        ))}
      </ul>
      <Failure of={more} />
      {conversations.length < (total.value ?? 0) && (
        <button
          type="button"
          class="button plain more"
          disabled={more.isRunning.value}
          onClick={() => void more.run(loadMore)}
        >
          Show more
        </button>
      )}
    </>
  );
}
