import { useSignal } from '@preact/signals';
import { Failure, Field, Form, useAction } from '../shell/components.tsx';
import { account, client, logOut, requestPasswordReset } from '../shell/session.ts';
import { Title } from './fields.tsx';
import { dateOf } from './formats.ts';

/** One's account. What the hub lets nobody change is only shown. */
export function Profile() {
  const found = account.value!;
  return (
    <>
      <Title>Profile</Title>
      <NameForm />
      <dl class="facts">
        <dt>Username</dt>
        <dd>{found.username}</dd>
        <dt>Email</dt>
        <dd>{found.email ?? 'None'}</dd>
        <dt>Role</dt>
        <dd>{found.role === 'admin' ? 'Administrator' : 'User'}</dd>
        <dt>Since</dt>
        <dd>{dateOf(found.created_at)}</dd>
        <dt>Id</dt>
        <dd class="id">{found.id}</dd>
      </dl>
      <Password email={found.email} />
      <section class="panel stack">
        <h3>Session</h3>
        <p>Logging out ends the session in all tabs of this browser, and forgets what was typed and not sent.</p>
        <div>
          <button type="button" class="button" onClick={() => void logOut()}>
            Log out here
          </button>
        </div>
      </section>
    </>
  );
}

function NameForm() {
  const name = useSignal(account.value!.name);
  const said = useSignal('');
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      said.value = '';
      const changed = await client.account.updateAccount({ name: name.value.trim() });
      account.value = changed;
      name.value = changed.name;
      said.value = 'Saved.';
    });
  return (
    <Form class="stack narrow" submit={submit}>
      <Field label="Name" value={name} autocomplete="name" required wrong={action.wrong('name')} />
      <Failure of={action} fields={['name']} />
      <div class="row">
        <button class="button main" disabled={action.isRunning.value || name.value.trim() === account.value!.name}>
          Save
        </button>
        <span role="status" class="quiet">
          {said}
        </span>
      </div>
    </Form>
  );
}

/** The hub changes a password by a link that it sends, whoever is logged in. */
function Password({ email }: { email: string | undefined }) {
  const isSent = useSignal(false);
  const action = useAction();
  const ask = () =>
    action.run(async () => {
      await requestPasswordReset(email!);
      isSent.value = true;
    });
  return (
    <section class="panel stack">
      <h3>Password</h3>
      {email === undefined ? (
        <p>A password is changed by a link in a mail, and this account has no email.</p>
      ) : (
        <>
          <p>A link to choose a new one is sent to {email}. All your sessions end with the old one, this one too.</p>
          <Failure of={action} fields={[]} />
          <div class="row">
            <button
              type="button"
              class="button"
              disabled={action.isRunning.value || isSent.value}
              onClick={() => void ask()}
            >
              Send me the link
            </button>
            <span role="status" class="quiet">
              {isSent.value && 'A mail with the link is on its way.'}
            </span>
          </div>
        </>
      )}
    </section>
  );
}
