import { useSignal } from '@preact/signals';
import { isRefused } from '#client';
import { Dialog, Failure, Field, Form, useAction } from './components.tsx';
import { MessagesIcon } from './icons.tsx';
import { goTo, path, query, urlOf } from './router.ts';
import { account, logIn, logOut, register, requestPasswordReset, resetPassword } from './session.ts';

/** The views for whoever is not logged in. After the login one is where one wanted to go: its URL stays as it is. */

export function Door() {
  const [name] = path.value;
  const View = name === 'register' ? Register : name === 'forgotten' ? Forgotten : name === 'reset' ? Reset : Login;
  return (
    <main class="door">
      <div class="panel">
        <p class="mark">
          <MessagesIcon />
          Chat4All
        </p>
        <View />
      </div>
    </main>
  );
}

function LoginForm({ name: fixedName }: { name?: string }) {
  const name = useSignal(fixedName ?? '');
  const password = useSignal('');
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      try {
        await logIn(name.value, password.value);
      } catch (error) {
        if (!isRefused(error, 'INVALID_CREDENTIALS')) throw error;
        password.value = '';
        throw new WrongCredentials();
      }
    });
  return (
    <Form submit={submit}>
      <Field
        label="Username or email"
        value={name}
        autocomplete="username"
        autocapitalize="none"
        required
        readOnly={fixedName !== undefined}
      />
      <Field label="Password" value={password} type="password" autocomplete="current-password" required />
      {action.error.value instanceof WrongCredentials ? (
        <p class="notice bad" role="alert">
          The name or the password is wrong.
        </p>
      ) : (
        <Failure of={action} />
      )}
      <button class="button main" disabled={action.isRunning.value}>
        {action.isRunning.value ? 'Logging in…' : 'Log in'}
      </button>
    </Form>
  );
}

class WrongCredentials extends Error {}

function Login() {
  return (
    <div class="stack">
      <h1>Log in</h1>
      <LoginForm />
      <p class="row apart small">
        <a href={urlOf('register')}>Create an account</a>
        <a href={urlOf('forgotten')}>Forgotten the password?</a>
      </p>
    </div>
  );
}

/** Over what somebody was doing when the session ended: it stays as it is. */
export function LoginAgain() {
  const username = account.value?.username ?? '';
  return (
    <Dialog title="Your login has ended" close={undefined}>
      <div class="stack">
        <p>Log in again to go on where you were. What you have typed is still there.</p>
        <LoginForm name={username} />
        <button type="button" class="button plain" onClick={() => void logOut()}>
          Log in as somebody else
        </button>
      </div>
    </Dialog>
  );
}

const passwordHint = 'At least 8 characters, with upper and lower case, a digit and another character.';

function Register() {
  const [name, email, username, password] = [useSignal(''), useSignal(''), useSignal(''), useSignal('')];
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      const wanted = username.value.trim();
      await register({
        name: name.value,
        email: email.value.trim(),
        password: password.value,
        ...(wanted === '' ? {} : { username: wanted }),
      });
      goTo(urlOf('messages'), { replace: true });
    });
  return (
    <div class="stack">
      <h1>Create an account</h1>
      <Form submit={submit}>
        <Field label="Name" value={name} autocomplete="name" required wrong={action.wrong('name')} />
        <Field label="Email" value={email} type="email" autocomplete="email" required wrong={action.wrong('email')} />
        <Field
          label="Username"
          value={username}
          autocomplete="username"
          autocapitalize="none"
          hint="By which others find you. Left empty, it is made from the email."
          wrong={action.wrong('username')}
        />
        <Field
          label="Password"
          value={password}
          type="password"
          autocomplete="new-password"
          required
          hint={passwordHint}
          wrong={action.wrong('password')}
        />
        <Failure of={action} fields={['name', 'email', 'username', 'password']} />
        <button class="button main" disabled={action.isRunning.value}>
          {action.isRunning.value ? 'Creating the account…' : 'Create the account'}
        </button>
      </Form>
      <p class="small">
        <a href={urlOf('login')}>I have an account</a>
      </p>
    </div>
  );
}

function Forgotten() {
  const email = useSignal('');
  const isSent = useSignal(false);
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      await requestPasswordReset(email.value);
      isSent.value = true;
    });
  return (
    <div class="stack">
      <h1>Choose a new password</h1>
      {isSent.value ? (
        <p class="notice" role="status">
          If there is an account with this email, a mail with a link is on its way.
        </p>
      ) : (
        <Form submit={submit}>
          <Field
            label="Email"
            value={email}
            type="email"
            autocomplete="email"
            required
            hint="A link to choose a new password is sent there."
            wrong={action.wrong('email')}
          />
          <Failure of={action} fields={['email']} />
          <button class="button main" disabled={action.isRunning.value}>
            Send the link
          </button>
        </Form>
      )}
      <p class="small">
        <a href={urlOf('login')}>Back to the login</a>
      </p>
    </div>
  );
}

function Reset() {
  const password = useSignal('');
  const isDone = useSignal(false);
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      await resetPassword(query.value.get('token') ?? '', password.value);
      isDone.value = true;
      // The token is used up, and no business of the history.
      goTo(urlOf('reset'), { replace: true });
    });
  return (
    <div class="stack">
      <h1>Choose a new password</h1>
      {isDone.value ? (
        <p class="notice" role="status">
          The password is changed. Log in with it.
        </p>
      ) : (
        <Form submit={submit}>
          <Field
            label="New password"
            value={password}
            type="password"
            autocomplete="new-password"
            required
            hint={passwordHint}
            wrong={action.wrong('new_password')}
          />
          <Failure of={action} fields={['new_password']} />
          <button class="button main" disabled={action.isRunning.value}>
            Change the password
          </button>
        </Form>
      )}
      <p class="small">
        <a href={urlOf('login')}>Back to the login</a>
      </p>
    </div>
  );
}
