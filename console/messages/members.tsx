import { useSignal } from '@preact/signals';
import { isRefused } from '#client';
import { Failure, Field, Form, useAction } from '../shell/components.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { client, me } from '../shell/session.ts';
import { add, forget, known } from './conversations.ts';
import { Initial } from './list.tsx';
import { nameOf } from './people.ts';
import { Side } from './side.tsx';

/** Who is in a conversation, how far each has read, and who may be added. */
export function Members({ conversation: id }: { conversation: string }) {
  const found = known.value.get(id);
  const leaving = useAction();
  const adding = useAction();
  const name = useSignal('');
  const isSure = useSignal(false);
  if (found === undefined) return null;
  const { conversation, read, last } = found;
  const leave = () =>
    leaving.run(async () => {
      await client.conversation.leaveConversation({ conversation_id: id });
      forget(id);
      goTo(urlOf('messages'));
    });
  const include = () =>
    adding.run(async () => {
      add(await client.conversation.addMember({ conversation_id: id, member: name.value.trim() }));
      name.value = '';
    });
  return (
    <Side title="People" conversation={id}>
      <div class="stack">
        {conversation.metadata.description !== '' && <p dir="auto">{conversation.metadata.description}</p>}
        <ul class="members">
          {conversation.members.map((member) => {
            const unread = (last?.seq ?? 0) - (read.get(member) ?? 0);
            return (
              <li key={member} class="row">
                <Initial of={nameOf(member)} isGroup={false} />
                <span>
                  <span dir="auto">{nameOf(member)}</span>
                  {member === me() && <span class="quiet"> (you)</span>}
                  <br />
                  <span class="quiet small">
                    {last === undefined || unread <= 0 ? 'Has read everything' : `${unread} not read here`}
                  </span>
                </span>
              </li>
            );
          })}
        </ul>
        {conversation.type === 'group' && (
          <Form class="stack" submit={include}>
            <Field label="Add somebody" value={name} placeholder="Username" autocapitalize="none" required />
            {isRefused(adding.error.value, 'INVALID_ARGUMENT') ? (
              <p class="notice bad" role="alert">
                There is nobody of that name.
              </p>
            ) : (
              <Failure of={adding} />
            )}
            <button class="button" disabled={adding.isRunning.value}>
              Add
            </button>
          </Form>
        )}
        <div>
          {isSure.value ? (
            <div class="notice warn" role="alert">
              <span>You will get no more of it, and can’t come back by yourself.</span>
              <button
                type="button"
                class="button danger"
                disabled={leaving.isRunning.value}
                onClick={() => void leave()}
              >
                Leave
              </button>
              <button type="button" class="button" onClick={() => (isSure.value = false)}>
                Stay
              </button>
            </div>
          ) : (
            <button type="button" class="button danger" onClick={() => (isSure.value = true)}>
              Leave the conversation
            </button>
          )}
          <Failure of={leaving} />
        </div>
      </div>
    </Side>
  );
}
