import { within } from '../deadline.ts';
import { HubError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Bus, BusEvent } from './bus.ts';

/** How long `publish` may take, in milliseconds. */
const publishLimit = 5_000;

/** Of what is published for the first time. Whoever consumes has to take what is there, and to put it among the dead letters. */
const largestValue = 2 * 1024 * 1024;
/** Of calls that are stored together. */
const together = { events: 1_000, bytes: 1024 * 1024 };
/** Of a topic's calls that wait. */
const mostWaiting = 32 * 1024 * 1024;

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
  bytes: number;
  /** Fulfilled once the events are stored. */
  stored: PromiseWithResolvers<void>;
  /** Its caller has been told that it failed: storing it now would only put it behind what came after it. */
  late: boolean;
}

/**
 * How an adapter stores events, in order. What is stored piece by piece is given up once `isLate` says so: its caller has been told that
 * it failed, and other calls are being stored.
 */
export type Store = (topic: string, events: readonly BusEvent[], isLate: () => boolean) => Promise<void>;

/**
 * Makes `publish` of a bus out of the adapter's way to store events: checks them, keeps the publications to one topic in
 * the order of the calls, and answers in time. What comes while another call is being stored is stored together after it; when too
 * much waits already, it is refused as if the bus were away.
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
        await answersWithin(publishLimit, storing);
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
    if (waiting > 0 && waiting + bytes > mostWaiting) throw unavailable(new Error(`${waiting} bytes wait already`));
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

/** Topics and groups are named so that both engines take the name. */
export function checkName(what: string, name: string): void {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(name))
    throw new TypeError(`${what}: ${JSON.stringify(name)} is no name`);
}

function checkEvent(event: BusEvent, index: number): void {
  if (event.key === '' || event.key.length > 255)
    throw new TypeError(`events[${index}].key must have 1 to 255 characters`);
  const isNew = event.deadLetter === undefined && event.isReplayed !== true;
  if (isNew && event.value.byteLength > largestValue) {
    throw new RangeError(
      `events[${index}].value has ${event.value.byteLength} bytes; at most ${largestValue} are allowed`,
    );
  }
}

/** Says it if a topic has another number of partitions than this process is told. */
export function tellOfPartitions(
  log: Logger,
  { topic, partitions, found }: { topic: string; partitions: number; found: number },
): void {
  if (found === partitions) return;
  log.warn(
    { topic },
    `BUS_PARTITIONS is ${partitions}, but the topic has ${found}: all processes need the same number`,
  );
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
