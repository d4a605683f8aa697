import { HubError } from '#lib/errors.ts';

/** Streams of answers that one user may have open at a process. */
const maxStreams = 20;

/** Counts the streams that users have open, of chats and of completions alike. */
export type Streams = ReturnType<typeof openStreams>;

export function openStreams() {
  const counts = new Map<string, number>();
  return {
    /** Counts a stream until it is disposed of. @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_STREAMS` */
    open(userId: string): Disposable {
      const count = counts.get(userId) ?? 0;
      if (count >= maxStreams) {
        throw new HubError('RESOURCE_EXHAUSTED', 'TOO_MANY_STREAMS', `You have ${maxStreams} streams open already`, {
          retryAfter: 1,
        });
      }
      counts.set(userId, count + 1);
      return {
        [Symbol.dispose]() {
          const left = counts.get(userId)! - 1;
          if (left === 0) counts.delete(userId);
          else counts.set(userId, left);
        },
      };
    },
  };
}
