import { signal } from '@preact/signals';
import { client } from '../shell/session.ts';

/** The names of users by their ids: of those who write, the messages say them; of others, the list of users. */
const names = signal<ReadonlyMap<string, string>>(new Map());

/** A page of the list of users, and how many are asked for. Beyond them, people are shown by the beginning of their id. */
const pageSize = 100;
const mostPages = 10;
let listing: Promise<void> | undefined;
/** Whether the list was asked for, and what it says is known. */
const isListed = signal(false);

/** The name of a user. It is asked for when it is not known; until then it is three dots. */
export function nameOf(user: string): string {
  const known = names.value.get(user);
  if (known !== undefined) return known;
  listing ??= list()
    .catch(() => void (listing = undefined))
    .finally(() => (isListed.value = true));
  return isListed.value ? user.slice(0, 8) : '…';
}

/** Takes note of a name that the hub has told beside something else. */
export function learn(user: string, name: string): void {
  if (names.peek().get(user) !== name) names.value = new Map(names.peek()).set(user, name);
}

async function list(): Promise<void> {
  for (let page = 0; page < mostPages; page += 1) {
    const { users, total } = await client.auth.listUsers({ limit: pageSize, offset: page * pageSize });
    names.value = new Map([...names.peek(), ...users.map((user) => [user.user_id, user.username] as const)]);
    if ((page + 1) * pageSize >= total) return;
  }
}
