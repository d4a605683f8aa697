import { useSignal } from '@preact/signals';
import type { ApiKey, CreateApiKeyResponse } from '#client/account';
import { Dialog, Empty, Failure, Field, Form, useAction } from '../shell/components.tsx';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Confirm, Mark, Secret, Table, Title } from './fields.tsx';
import { dateOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';

/** How many keys are shown at once: the API lists all of them. */
const shownAtOnce = 20;

/** Keys for one's programs. */
export function Keys() {
  const keys = useLoaded((signal) => client.account.listApiKeys({}, { signal }));
  const isCreating = useSignal(false);
  const created = useSignal<CreateApiKeyResponse | undefined>(undefined);
  const revoked = useSignal<ApiKey | undefined>(undefined);
  const mostShown = useSignal(shownAtOnce);
  const isWithEnded = useSignal(false);
  const revoke = async ({ id }: ApiKey) => {
    await client.account.revokeApiKey({ key_id: id });
    await keys.load();
  };
  return (
    <>
      <Title
        beside={
          <button type="button" class="button main" onClick={() => (isCreating.value = true)}>
            New key
          </button>
        }
      >
        API keys
      </Title>
      <p class="quiet">
        A program sends one as <code>X-API-Key</code>, and may do what you may; save for keys, logging out, and
        administration.
      </p>
      <Shown of={keys} what="your API keys">
        {(found) => {
          const listed = isWithEnded.value ? found : found.filter((key) => stateOf(key) === 'Active');
          const ended = found.length - found.filter((key) => stateOf(key) === 'Active').length;
          return (
            <>
              {listed.length === 0 ? (
                <Empty title="No API keys">
                  <p>Make one for each program, so that you can revoke it alone.</p>
                </Empty>
              ) : (
                <Table
                  label="API keys"
                  heads={['Name', 'Begins with', 'State', 'Made', 'Last used', 'Expires', 'Actions']}
                >
                  {listed.slice(0, mostShown.value).map((key) => (
                    <Row key={key.id} of={key} revoke={() => (revoked.value = key)} />
                  ))}
                </Table>
              )}
              <div class="row">
                {listed.length > mostShown.value && (
                  <button type="button" class="button" onClick={() => (mostShown.value += shownAtOnce)}>
                    Show more
                  </button>
                )}
                {ended > 0 && (
                  <button type="button" class="button plain" onClick={() => (isWithEnded.value = !isWithEnded.value)}>
                    {isWithEnded.value ? 'Hide' : 'Show'} revoked and expired ones ({ended})
                  </button>
                )}
              </div>
            </>
          );
        }}
      </Shown>
      {isCreating.value && (
        <NewKey
          close={() => (isCreating.value = false)}
          done={(key) => {
            isCreating.value = false;
            created.value = key;
            void keys.load();
          }}
        />
      )}
      {created.value !== undefined && (
        <Secret
          title="Your new key"
          label={`Key of ${created.value.name}`}
          value={created.value.key}
          close={() => (created.value = undefined)}
        />
      )}
      {revoked.value !== undefined && (
        <Confirm
          title={`Revoke ${revoked.value.name}?`}
          verb="Revoke it"
          isDangerous
          work={() => revoke(revoked.peek()!)}
          close={() => (revoked.value = undefined)}
        >
          <p>Programs that use it are refused within two seconds. That can’t be taken back.</p>
        </Confirm>
      )}
    </>
  );
}

function stateOf({ active, expires_at }: ApiKey): 'Active' | 'Expired' | 'Revoked' {
  if (!active) return 'Revoked';
  return expires_at !== undefined && new Date(expires_at) <= new Date() ? 'Expired' : 'Active';
}

function Row({ of: key, revoke }: { of: ApiKey; revoke: () => void }) {
  const { name, key_prefix, created_at, last_used_at, expires_at } = key;
  const state = stateOf(key);
  return (
    <tr>
      <th scope="row" dir="auto">
        {name}
      </th>
      <td>
        <code>{key_prefix}…</code>
      </td>
      <td>
        <Mark is={state === 'Active' ? 'good' : 'quiet'}>{state}</Mark>
      </td>
      <td>{dateOf(created_at)}</td>
      <td>{last_used_at === undefined ? 'Never' : <time dateTime={last_used_at}>{fullTime(last_used_at)}</time>}</td>
      <td>{expires_at === undefined ? 'Never' : dateOf(expires_at)}</td>
      <td>
        {state === 'Active' && (
          <button type="button" class="button danger" onClick={revoke}>
            Revoke<span class="hidden-text"> {name}</span>
          </button>
        )}
      </td>
    </tr>
  );
}

function NewKey({ close, done }: { close: () => void; done: (key: CreateApiKeyResponse) => void }) {
  const [name, day] = [useSignal(''), useSignal('')];
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      const last = day.value === '' ? undefined : new Date(`${day.value}T23:59:59`);
      done(
        await client.account.createApiKey({
          name: name.value,
          ...(last === undefined ? {} : { expires_at: last.toISOString() }),
        }),
      );
    });
  return (
    <Dialog title="New key" close={close}>
      <Form submit={submit}>
        <Field label="Name" value={name} required hint="What it is for." wrong={action.wrong('name')} />
        <Field
          label="Last day"
          value={day}
          type="date"
          hint="Left empty, it is good until you revoke it."
          wrong={action.wrong('expires_at')}
        />
        <Failure of={action} fields={['name', 'expires_at']} />
        <div>
          <button class="button main" disabled={action.isRunning.value}>
            Make the key
          </button>
        </div>
      </Form>
    </Dialog>
  );
}
