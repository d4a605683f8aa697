import type { Database } from '#lib/database.ts';
import { isUuid } from '#lib/uuid.ts';

/** The PostgreSQL notification by which the processes of this service tell each other what has happened. */
export const eventsNotification = 'events';

/** What a process says about who is present: whom it asks for, and who is present there, or not any more. */
export type PresenceSaid = 'asks' | 'arrived' | 'departed';

/** What a process is told, by another one or by itself. */
export interface Heard {
  /** The log has grown up to an id. */
  grown(head: number): void;
  typing(conversationId: string, userId: string): void;
  /** What a process, which is named by a UUID, says of these users. */
  presence(said: PresenceSaid, process: string, userIds: readonly string[]): void;
  /** Something was changed of an endpoint of a webhook, or there is something new for it. */
  webhook(endpointId: string): void;
}

/** Tells all processes of this service, this one included. */
export interface Processes {
  /** That the log has grown: soon, and once for all that comes meanwhile. What is lost, a process finds when it looks by itself. */
  grown(head: number): void;
  /** That somebody is writing. */
  typing(conversationId: string, userId: string): Promise<void>;
  /** Something about who is present, of 200 users at most; nothing at all of none. */
  presence(said: PresenceSaid, process: string, userIds: readonly string[]): Promise<void>;
  /** That something was changed of an endpoint of a webhook, or that there is something new for it. */
  webhook(endpointId: string): Promise<void>;
  stop(): void;
}

/** The shortest time between two notifications about the log: each of them costs a commit. */
const pauseMs = 20;

export function openProcesses(database: Pick<Database, 'sql'>): Processes {
  let head = 0;
  let timer: NodeJS.Timeout | undefined;
  async function notify(payload: string): Promise<void> {
    await database.sql('select pg_notify($1, $2)', [eventsNotification, payload]);
  }
  return {
    grown(to) {
      head = Math.max(head, to);
      timer ??= setTimeout(() => {
        timer = undefined;
        notify(`grown ${head}`).catch(() => {});
      }, pauseMs);
    },
    typing: (conversationId, userId) => notify(`typing ${conversationId} ${userId}`),
    async presence(said, process, userIds) {
      if (userIds.length > 0) await notify(`${said} ${process} ${userIds.join(' ')}`);
    },
    webhook: (endpointId) => notify(`webhook ${endpointId}`),
    stop: () => clearTimeout(timer),
  };
}

/** Reads a notification. One that can't be read is from a newer version, and means nothing here. */
export function hear(payload: string, heard: Heard): void {
  const [what, first = '', ...others] = payload.split(' ');
  const [second = ''] = others;
  if (what === 'grown' && /^\d+$/.test(first)) heard.grown(Number(first));
  if (what === 'typing' && isUuid(first) && isUuid(second)) heard.typing(first, second);
  if (what === 'asks' || what === 'arrived' || what === 'departed') {
    if (isUuid(first) && others.every(isUuid)) heard.presence(what, first, others);
  }
  if (what === 'webhook' && isUuid(first)) heard.webhook(first);
}
