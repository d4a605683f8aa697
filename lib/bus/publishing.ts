import { within } from '../deadline.ts';
import { HubError } from '../errors.ts';
import type { Bus, BusEvent } from './bus.ts';

/** How long `publish` may take, in milliseconds. */
const publishLimit = 5_000;

const largestValue = 2 * 1024 * 1024;

/** The bus is away: try again in a second. */
export function unavailable(cause: unknown): HubError {
  if (cause instanceof HubError) return cause;
  return new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'The message bus is not available at the moment', {
    retryAfter: 1,
    cause,
  });
}

/** Waits for `work`, at most `limit` milliseconds; whatever goes wrong with it means that the bus is away. */
export async function answersWithin<T>(limit: number, work: Promise<T>): Promise<T> {
  try {
    return await within(limit, work, () => new Error(`no answer within ${limit} ms`));
  } catch (error) {
    throw unavailable(error);
  }
}

/** A call of `publish` whose turn has not come. */
interface Waiting {
  events: readonly BusEvent[];
  /** Fulfilled once the events are stored. */
  stored: PromiseWithResolvers<void>;
  /** Its caller has been told that it failed: storing it now would only put it behind what came after it. */
  late: boolean;
}

/**
 * Makes `publish` of a bus out of the adapter's way to store events: checks them, keeps the publications to one topic in
 * the order of the calls, and answers in time. What comes while another call is being stored is stored together after it.
 */
export function publisher(store: (topic: string, events: readonly BusEvent[]) => Promise<void>): Bus['publish'] {
  const queues = new Map<string, Waiting[]>();

  async function storeAll(topic: string, queue: Waiting[]): Promise<void> {
    while (queue.length > 0) {
      const calls = takeSome(queue);
      try {
        const events = calls.flatMap((call) => call.events);
        if (events.length > 0) await answersWithin(publishLimit, store(topic, events));
        for (const call of calls) call.stored.resolve();
      } catch (error) {
        for (const call of calls) call.stored.reject(error);
      }
    }
    queues.delete(topic);
  }

  return async function publish(topic, events) {
    checkName('topic', topic);
    events.forEach(checkEvent);
    if (events.length === 0) return;
    const call: Waiting = { events, stored: Promise.withResolvers(), late: false };
    const queue = queues.get(topic);
    if (queue === undefined) {
      const begun = [call];
      queues.set(topic, begun);
      void storeAll(topic, begun);
    } else {
      queue.push(call);
    }
    try {
      await answersWithin(publishLimit, call.stored.promise);
    } finally {
      call.late = true;
    }
  };
}

/** Takes the next calls out of the queue, as many as make up a good size to store at once. */
function takeSome(queue: Waiting[]): Waiting[] {
  const calls: Waiting[] = [];
  for (let events = 0; queue.length > 0 && events < 1_000;) {
    const call = queue.shift()!;
    if (call.late) continue;
    calls.push(call);
    events += call.events.length;
  }
  return calls;
}

/** Topics and groups are named so that both engines take the name. */
export function checkName(what: string, name: string): void {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(name))
    throw new TypeError(`${what}: ${JSON.stringify(name)} is no name`);
}

function checkEvent(event: BusEvent, index: number): void {
  if (event.key === '' || event.key.length > 255)
    throw new TypeError(`events[${index}].key must have 1 to 255 characters`);
  if (event.value.byteLength > largestValue) {
    throw new RangeError(
      `events[${index}].value has ${event.value.byteLength} bytes; at most ${largestValue} are allowed`,
    );
  }
}

/** Cuts events into runs of at most `count` events and about `bytes` bytes, in order. */
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
