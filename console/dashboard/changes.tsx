import { Empty } from '../shell/components.tsx';
import { urlOf } from '../shell/router.ts';
import { client, me } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Table, Title } from './fields.tsx';
import { Shown, useLoaded } from './loaded.tsx';
import { chosenOf, Choices, pageAsked, Pages } from './paging.tsx';

const actions = [
  ['all', 'All'],
  ['user.update', 'Users changed'],
  ['tool.create', 'Tools added'],
  ['tool.update', 'Tools changed'],
  ['tool.delete', 'Tools deleted'],
] as const;

const titles: Readonly<Record<string, string>> = {
  'user.update': 'Changed a user',
  'tool.create': 'Added a tool',
  'tool.update': 'Changed a tool',
  'tool.delete': 'Deleted a tool',
};

/** What administrators have changed. */
export function Changes() {
  const action = chosenOf('action', actions);
  const page = pageAsked();
  const changes = useLoaded(
    (signal) => client.userAdmin.listAuditEvents({ ...page, ...(action === 'all' ? {} : { action }) }, { signal }),
    [action, page.offset],
  );
  return (
    <>
      <Title>Changes</Title>
      <p class="quiet">
        What administrators have changed of <a href={urlOf('dashboard', 'users')}>users</a> and{' '}
        <a href={urlOf('dashboard', 'all-tools')}>tools</a>.
      </p>
      <Choices label="Kind" name="action" choices={actions} />
      <Shown of={changes} what="the changes">
        {(found) =>
          found.length === 0 && found.pagination.total === 0 ? (
            <Empty title="No changes so far" />
          ) : (
            <>
              <Table label="Changes" heads={['When', 'What', 'Which', 'Who', 'Request']}>
                {found.map(({ id, at, action, target, actor_id, request_id }) => (
                  <tr key={id}>
                    <td>
                      <time dateTime={at}>{fullTime(at)}</time>
                    </td>
                    <td>{titles[action] ?? action}</td>
                    <td class="id">{target}</td>
                    <td class="id">{actor_id === me() ? 'You' : actor_id}</td>
                    <td class="id">{request_id}</td>
                  </tr>
                ))}
              </Table>
              <Pages total={found.pagination.total} of="changes" />
            </>
          )
        }
      </Shown>
    </>
  );
}
