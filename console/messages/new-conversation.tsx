import { useSignal } from '@preact/signals';
import { Failure, Field, Form, useAction } from '../shell/components.tsx';
import { BackIcon } from '../shell/icons.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { account, client } from '../shell/session.ts';
import { add, privateWith } from './conversations.ts';
import { learn } from './people.ts';

/** Somebody is named whom the hub does not know. */
class UnknownPerson extends Error {}

/** Opens a conversation with somebody, or a group. */
export function NewConversation() {
  const names = useSignal('');
  const title = useSignal('');
  const action = useAction();
  const own = account.value!.username;
  const others = [...new Set(names.value.split(/[\s,;]+/).filter((name) => name !== '' && name !== own))];
  const isGroup = others.length > 1;

  const submit = () =>
    action.run(async () => {
      const found = await Promise.all(
        others.map(async (username) => {
          const { users } = await client.auth.listUsers({ username });
          if (users[0] === undefined) throw new UnknownPerson(username);
          learn(users[0].user_id, users[0].username);
          return users[0].user_id;
        }),
      );
      const earlier = isGroup ? undefined : privateWith(found[0]!);
      if (earlier !== undefined) {
        goTo(urlOf('messages', earlier), { replace: true });
        return;
      }
      const conversation = await client.conversation.createConversation({
        type: isGroup ? 'group' : 'private',
        members: [account.value!.id, ...found],
        metadata: isGroup && title.value.trim() !== '' ? { name: title.value.trim() } : null,
      });
      add(conversation);
      goTo(urlOf('messages', conversation.conversation_id), { replace: true });
    });

  const { error } = action;
  return (
    <section class="new-conversation" aria-labelledby="new-conversation">
      <header class="row">
        <a class="button plain icon back" href={urlOf('messages')} aria-label="Back to the conversations">
          <BackIcon />
        </a>
        <h2 id="new-conversation">New conversation</h2>
      </header>
      <Form class="stack" submit={submit}>
        <Field
          label="With whom"
          value={names}
          placeholder="user2"
          autocapitalize="none"
          autocomplete="off"
          hint="A username, or several with spaces in between for a group."
          required
          wrong={error.value instanceof UnknownPerson ? `There is nobody called ${error.value.message}.` : undefined}
        />
        {isGroup && <Field label="Name of the group" value={title} hint="It may be left empty." />}
        {!(error.value instanceof UnknownPerson) && <Failure of={action} />}
        <div>
          <button class="button main" disabled={action.isRunning.value || others.length === 0}>
            {isGroup ? 'Create the group' : 'Begin'}
          </button>
        </div>
      </Form>
    </section>
  );
}
