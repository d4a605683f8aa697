import { useSignal } from '@preact/signals';
import type { UserAccount } from '#client/account';
import { Empty } from '../shell/components.tsx';
import { client, me } from '../shell/session.ts';
import { Confirm, Mark, Table, Title } from './fields.tsx';
import { dateOf, wordOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices, ListEnd, listOrSearch, pageAsked, SearchField, wordsSearched } from './paging.tsx';

const roles = [
  ['all', 'All'],
  ['user', 'Users'],
  ['admin', 'Administrators'],
] as const;

interface Change {
  user: UserAccount;
  to: { role: 'user' | 'admin' } | { status: 'active' | 'disabled' };
}

/** Everybody, for administrators: who may do what. */
export function Users() {
  const role = chosenOf('role', roles);
  const users = useLoaded(
    (signal) =>
      listOrSearch(
        (page) => client.userAdmin.listAccounts({ ...page, ...(role === 'all' ? {} : { role }) }, { signal }),
        ({ name, username, email = '' }) => `${name} ${username} ${email}`,
      ),
    [role, wordsSearched(), pageAsked().offset],
  );
  const asked = useSignal<Change | undefined>(undefined);
  const change = async ({ user, to }: Change) => {
    await client.userAdmin.updateUser({ user_id: user.id, ...to });
    await users.load();
  };
  return (
    <>
      <Title>Users</Title>
      <div class="row apart">
        <div class="narrow">
          <SearchField label="Search" />
        </div>
        <Choices label="Role" name="role" choices={roles} />
      </div>
      <Shown of={users} what="the users">
        {(list) => (
          <>
            {list.entries.length === 0 && list.total === 0 ? (
              <Empty title="Nobody here" />
            ) : (
              <Table label="Users" heads={['Name', 'Email', 'Role', 'State', 'Plan', 'Since', 'Actions']}>
                {list.entries.map((user) => (
                  <Row key={user.id} of={user} ask={(to) => (asked.value = { user, to })} />
                ))}
              </Table>
            )}
            <ListEnd list={list} of="users" />
          </>
        )}
      </Shown>
      {asked.value !== undefined && (
        <Asked of={asked.value} change={() => change(asked.peek()!)} close={() => (asked.value = undefined)} />
      )}
    </>
  );
}

function Row({ of: user, ask }: { of: UserAccount; ask: (to: Change['to']) => void }) {
  const { id, username, name, email, role, status, subscription, created_at } = user;
  return (
    <tr data-user={username}>
      <th scope="row">
        <span dir="auto">{name}</span>
        {id === me() && <span class="quiet"> (you)</span>}
        <br />
        <span class="quiet small">{username}</span>
      </th>
      <td class="free">{email ?? ''}</td>
      <td>{role === 'admin' ? 'Administrator' : 'User'}</td>
      <td>
        <Mark is={status === 'active' ? 'good' : 'bad'}>{wordOf(status)}</Mark>
      </td>
      <td>
        {subscription !== undefined && (
          <>
            {wordOf(subscription.plan)}
            {subscription.status !== 'active' && <span class="quiet"> ({subscription.status})</span>}
          </>
        )}
      </td>
      <td>{dateOf(created_at)}</td>
      <td>
        <div class="row actions">
          <button type="button" class="button" onClick={() => ask({ role: role === 'admin' ? 'user' : 'admin' })}>
            {role === 'admin' ? 'Make a user' : 'Make an administrator'}
            <span class="hidden-text"> {username}</span>
          </button>
          <button
            type="button"
            class={status === 'active' ? 'button danger' : 'button'}
            onClick={() => ask({ status: status === 'active' ? 'disabled' : 'active' })}
          >
            {status === 'active' ? 'Disable' : 'Enable'}
            <span class="hidden-text"> {username}</span>
          </button>
        </div>
      </td>
    </tr>
  );
}

function Asked({ of: { user, to }, change, close }: { of: Change; change: () => Promise<void>; close: () => void }) {
  const [title, verb, words, isDangerous] =
    'role' in to
      ? to.role === 'admin'
        ? [`Make ${user.username} an administrator?`, 'Do it', 'Administrators see and change everything here.', false]
        : [`Make ${user.username} a user?`, 'Do it', 'The rights of an administrator end within two seconds.', true]
      : to.status === 'disabled'
        ? [
            `Disable ${user.username}?`,
            'Disable',
            'Within two seconds, nothing is accepted any more of this user: no login, no token, no API key.',
            true,
          ]
        : [
            `Enable ${user.username}?`,
            'Enable',
            'This user may log in again. Webhooks stay paused until they are resumed.',
            false,
          ];
  return (
    <Confirm title={title} verb={verb} isDangerous={isDangerous} work={change} close={close}>
      <p>{words}</p>
      {user.id === me() && <p class="notice warn">That is you.</p>}
    </Confirm>
  );
}
