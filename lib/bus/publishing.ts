import { within } from '../deadline.ts';
import { HubError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Bus, BusEvent } from './bus.ts';

/** How long `publish` may take, in milliseconds. */
const publishTimeoutMs = 5_000;

/** The maximum size of a new event. Consumers have to accept larger ones, and to move them to the dead letters. */
const maxValueBytes = 2 * 1024 * 1024;
/** The limits of calls that are stored together. */
const together = { events: 1_000, bytes: 1024 * 1024 };
/** The maximum size of the waiting calls of a topic. */
const maxWaitingBytes = 32 * 1024 * 1024;

/** The error for a bus that is unavailable; it asks to retry after a second. */
export function unavailable(cause: unknown): HubError {
  if (cause instanceof HubError) return cause;
  return new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'The message bus is not available at the moment', {
    retryAfter: 1,
    cause,
  });
}

/** Waits up to `timeoutMs` for `work`. Any failure means that the bus is unavailable. */
export async function answersWithin<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  try {
    return await within(timeoutMs, work, () => new Error(`no answer within ${timeoutMs} ms`));
  } catch (error) {
    throw unavailable(error);
  }
}

/** A call of `publish` that waits to be stored. */
interface Waiting {
  events: readonly BusEvent[];
  bytes: number;
  /** Fulfilled once the events are stored. */
  stored: PromiseWithResolvers<void>;
  /** Whether its caller has been told that it failed. Then it isn't stored any more: it would come after later calls. */
  late: boolean;
}

/**
 * Stores events in order, as an adapter does it. One that stores them in several steps stops once `isLate` returns true: the caller has
 * been told that the call failed, and later calls are being stored.
 */
export type Store = (topic: string, events: readonly BusEvent[], isLate: () => boolean) => Promise<void>;

/**
 * Makes the `publish` of a bus from an adapter's `store`: validates events, stores those of one topic in the order of the calls, and
 * answers within the timeout. Calls that come while another one is being stored are stored together after it; when too much waits already,
 * a call is refused as if the bus were unavailable.
 */
export function publisher(store: Store): Bus['publish'] {
  const queues = new Map<string, Waiting[]>();

  async function storeAll(topic: string, queue: Waiting[]): Promise<void> {
    while (queue.length > 0) {
      const calls = takeSome(queue);
      let isLate = false;
      try {
        const events = calls.flatMap((call) => call.events);
        const storing = events.length === 0 ? Promise.resolve() : store(topic, events, () => isLate);
        await answersWithin(publishTimeoutMs, storing);
        for (const call of calls) call.stored.resolve();
      } catch (error) {
        isLate = true;
        for (const call of calls) call.stored.reject(error);
      }
    }
    queues.delete(topic);
  }

  return async function publish(topic, events) {
    checkName('topic', topic);
    events.forEach(checkEvent);
    if (events.length === 0) return;
    const bytes = events.reduce((sum, { value }) => sum + value.byteLength, 0);
    const call: Waiting = { events, bytes, stored: Promise.withResolvers(), late: false };
    const queue = queues.get(topic);
    const waiting = queue?.reduce((sum, each) => sum + (each.late ? 0 : each.bytes), 0) ?? 0;
    if (waiting > 0 && waiting + bytes > maxWaitingBytes) throw unavailable(new Error(`${waiting} bytes wait already`));
    if (queue === undefined) {
      const begun = [call];
      queues.set(topic, begun);
      void storeAll(topic, begun);
    } else {
      queue.push(call);
    }
    try {
      await answersWithin(publishTimeoutMs, call.stored.promise);
    } finally {
      call.late = true;
    }
  };
}

/** Takes the next calls from the queue, up to the limits of what is stored together. */
function takeSome(queue: Waiting[]): Waiting[] {
  const calls: Waiting[] = [];
  let events = 0;
  let bytes = 0;
  while (queue.length > 0 && events < together.events) {
    const [call] = queue as [Waiting];
    if (!call.late) {
      if (calls.length > 0 && bytes + call.bytes > together.bytes) break;
      calls.push(call);
      events += call.events.length;
      bytes += call.bytes;
    }
    queue.shift();
  }
  return calls;
}

/** Checks that a name of a topic or group is valid on both engines. @throws TypeError if it isn't */
export function checkName(what: string, name: string): void {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(name))
    throw new TypeError(`${what}: ${JSON.stringify(name)} is no name`);
}

function checkEvent(event: BusEvent, index: number): void {
  if (event.key === '' || event.key.length > 255)
    throw new TypeError(`events[${index}].key must have 1 to 255 characters`);
  const isNew = event.deadLetter === undefined && event.isReplayed !== true;
  if (isNew && event.value.byteLength > maxValueBytes) {
    throw new RangeError(
      `events[${index}].value has ${event.value.byteLength} bytes; at most ${maxValueBytes} are allowed`,
    );
  }
}

/** Logs a warning if a topic has another number of partitions than BUS_PARTITIONS. */
export function warnOfPartitions(
  log: Logger,
  { topic, partitions, found }: { topic: string; partitions: number; found: number },
): void {
  if (found === partitions) return;
  log.warn(
    { topic },
    `BUS_PARTITIONS is ${partitions}, but the topic has ${found}: all processes need the same number`,
  );
}

/** Splits events, in order, into runs of at most `count` events and about `bytes` bytes. */
export function* runs(events: readonly BusEvent[], count: number, bytes: number): Generator<BusEvent[]> {
  let run: BusEvent[] = [];
  let size = 0;
  for (const event of events) {
    if (run.length === count || (run.length > 0 && size + event.value.byteLength > bytes)) {
      yield run;
      run = [];
      size = 0;
    }
    run.push(event);
    size += event.value.byteLength;
  }
  if (run.length > 0) yield run;
}
