import test from 'ava';
import { checkEvents, shownTo } from './checker-events.ts';
import type { Follower } from './followers.ts';
import type { EventObservations, Said } from './observe-events.ts';
import type { Endpoint, HookRequest } from './receivers.ts';
import { cursorAt, opened, type Told } from './told.ts';

const [ana, bia, caio] = ['ana', 'bia', 'caio'] as const;
const epoch = 7;
const numbers: Record<string, number> = {
  message_accepted: 20,
  delivery_changed: 21,
  conversation_created: 23,
  member_joined: 24,
  member_left: 25,
  file_completed: 26,
};

/** A log in which caio leaves a group for two events, ana has a file, and two messages are written to a pair. */
const happened: [type: string, conversationId: string, about: Partial<Said>][] = [
  ['conversation_created', 'group', { userIds: [ana, bia, caio] }],
  ['conversation_created', 'pair', { userIds: [ana, bia] }],
  ['message_accepted', 'group', { subjectId: 'one' }],
  ['message_accepted', 'pair', { subjectId: 'two' }],
  ['delivery_changed', 'group', { subjectId: 'one' }],
  ['member_left', 'group', { userIds: [caio] }],
  ['message_accepted', 'group', { subjectId: 'three' }],
  ['member_joined', 'group', { userIds: [caio] }],
  ['file_completed', '', { subjectId: 'file' }],
  ['delivery_changed', 'pair', { subjectId: 'two' }],
  ['delivery_changed', 'group', { subjectId: 'three' }],
  ['message_accepted', 'pair', { subjectId: 'four' }],
];

const cursor = (position: number) => cursorAt({ epoch, position });
/** An event of the log, as it is told. */
const told = (id: number): Told => ({
  type: happened[id - 1]![0],
  cursor: cursor(id),
  eventId: `event ${id}`,
  digest: `says ${id}`,
});

/** All is well: ana follows a stream that breaks off once, caio long polls, bia has a webhook that has failed once. */
function right(): EventObservations {
  const log = happened.map(([type, conversationId], index) => ({
    id: index + 1,
    eventId: `event ${index + 1}`,
    conversationId,
    userId: conversationId === '' ? ana : '',
    type: numbers[type]!,
  }));
  const said = new Map(
    happened.map(([type, conversationId, about], index): [string, Said] => [
      `event ${index + 1}`,
      {
        type,
        conversationId,
        subjectId: '',
        seq: 0,
        status: '',
        message: undefined,
        deliveries: [],
        userIds: [],
        ...about,
      },
    ]),
  );
  const follower = (userId: string, way: Follower['way'], all: Told[]): Follower => ({
    userId,
    way,
    conversationIds: [],
    types: [],
    told: all,
  });
  const shown = (userId: string) =>
    shownTo({ log, said }, { userId, conversationIds: [], types: [] }).map(({ id }) => told(id));
  let count = 0;
  const request = (id: number, isTaken = true): HookRequest => ({
    told: told(id),
    isRight: true,
    came: (count += 1),
    taken: isTaken ? (count += 1) : undefined,
  });
  const endpoint: Endpoint = {
    webhookId: 'hook',
    userId: bia,
    conversationIds: [],
    types: ['message_accepted'],
    before: cursor(2),
    after: cursor(3),
    // The first one of the group is in between. That of the pair fails once: the group doesn't wait for it.
    requests: [request(4, false), request(7), request(4), request(4), request(12)],
  };
  return {
    log,
    head: { lastId: log.length, removedTo: 0, epoch },
    stretches: [
      { userId: ana, conversationId: 'group', fromId: 1, toId: null },
      { userId: bia, conversationId: 'group', fromId: 1, toId: null },
      { userId: caio, conversationId: 'group', fromId: 1, toId: 6 },
      { userId: caio, conversationId: 'group', fromId: 8, toId: null },
      { userId: ana, conversationId: 'pair', fromId: 2, toId: null },
      { userId: bia, conversationId: 'pair', fromId: 2, toId: null },
    ],
    lists: new Map([ana, bia, caio].map((userId) => [userId, shown(userId)])),
    said,
    followers: [
      follower(ana, 'sse', [
        opened('', cursor(2)),
        ...[3, 4, 5, 6, 7].map(told),
        // It goes on from an event before the last one, as a client may that was cut off.
        opened(cursor(5), cursor(5)),
        ...[6, 7, 8, 9, 10, 11, 12].map(told),
      ]),
      follower(caio, 'poll', [
        opened('', cursor(0)),
        ...[1, 3, 5, 6].map(told),
        opened(cursor(7), cursor(7)),
        told(8),
        told(11),
      ]),
    ],
    endpoints: [endpoint],
    statuses: new Map([['hook', 'active']]),
    backlogs: 0,
    members: new Map(),
    reads: [],
    movers: { conversationId: '', moverId: '', times: 0, readerId: '', reads: [] },
  };
}

const toldTo = ({ followers }: EventObservations, index: number) => followers[index]!.told;
const requestsOf = ({ endpoints }: EventObservations) => endpoints[0]!.requests;
function swap(items: Told[], one: number, other: number): void {
  [items[one], items[other]] = [items[other]!, items[one]!];
}
const reset = (position: number): Told => ({ type: 'reset', cursor: cursor(position), eventId: '', digest: '' });

test('checkEvents: finds nothing where all was told and sent', (t) => {
  t.deepEqual(checkEvents(right()), []);
});

test('shownTo: who has left sees no more until they are back, and the files of others never', (t) => {
  const ids = (userId: string, choice = {}) =>
    shownTo(right(), { userId, conversationIds: [], types: [], ...choice }).map(({ id }) => id);
  t.deepEqual(ids(caio), [1, 3, 5, 6, 8, 11]);
  t.deepEqual(ids(ana), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  t.deepEqual(ids(bia), [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]);
  t.deepEqual(ids(ana, { conversationIds: ['pair'], types: ['message_accepted'] }), [4, 12]);
});

const broken: [string, (found: EventObservations) => void, string[]][] = [
  [
    'an id that is left out',
    ({ log }) => void (log[11]!.id = 13),
    ['gap', 'gap', 'lost', 'lost', 'changed', 'changed'],
  ],
  ['a head that is further than the log', ({ head }) => void (head.lastId = 13), ['gap']],
  [
    'a conversation that was never opened',
    ({ said }) => void (said.get('event 2')!.type = 'member_joined'),
    ['changed', 'order'],
  ],
  ['an event that nobody is shown', ({ said }) => void said.delete('event 9'), ['lost']],
  [
    'a webhook that was paused',
    ({ log, said }) => {
      log[8]!.type = 27;
      said.get('event 9')!.type = 'webhook_paused';
    },
    ['failed'],
  ],
  ['a membership that is not kept', ({ stretches }) => void stretches.pop(), ['books']],
  ['a membership that goes on', ({ stretches }) => void (stretches[2]!.toId = null), ['books', 'books']],

  ['a hole in a list', ({ lists }) => void lists.get(bia)!.splice(3, 1), ['lost']],
  ['a list out of order', ({ lists }) => swap(lists.get(ana)!, 2, 3), ['lost']],
  ['a list with what is not for its user', ({ lists }) => void lists.get(caio)!.push(told(12)), ['forged']],
  [
    'a list that says something else',
    ({ lists }) => {
      lists.set(
        caio,
        lists.get(caio)!.map((each) => ({ ...each, digest: each.eventId === 'event 1' ? 'other' : each.digest })),
      );
    },
    ['changed', 'changed', 'changed'],
  ],

  ['a hole', (found) => void toldTo(found, 1).splice(2, 1), ['lost']],
  ['a hole at the end', (found) => void toldTo(found, 0).pop(), ['lost']],
  [
    'a hole where a stream begins anew',
    (found) => {
      toldTo(found, 0).splice(6, 3, opened(cursor(7), cursor(7)));
      toldTo(found, 0).splice(5, 1);
    },
    ['lost'],
  ],
  [
    'a stream that goes on elsewhere without a word',
    (found) => void (toldTo(found, 0)[6] = opened(cursor(4), cursor(5))),
    ['lost'],
  ],
  ['a follower who was told nothing', (found) => void (toldTo(found, 1).length = 0), ['lost']],
  ['two events of a conversation that are swapped', (found) => swap(toldTo(found, 1), 2, 3), ['order']],
  [
    'two events that are swapped on a stream, of different conversations',
    (found) => swap(toldTo(found, 0), 1, 2),
    ['order'],
  ],
  [
    'an event that comes only with the next stream, behind others of its conversation',
    (found) => {
      toldTo(found, 0).splice(3, 1);
      toldTo(found, 0)[5] = opened(cursor(4), cursor(4));
      toldTo(found, 0).splice(6, 0, told(5));
    },
    ['order'],
  ],
  ['a twin on the same stream', (found) => void toldTo(found, 0).splice(3, 0, told(4)), ['doubled']],
  [
    'a twin that says something else',
    (found) => {
      toldTo(found, 0)[7] = { ...told(6), digest: 'other' };
    },
    ['changed'],
  ],
  [
    'a cursor of another place',
    (found) => {
      toldTo(found, 1)[1] = { ...told(1), cursor: cursor(2) };
    },
    ['changed'],
  ],
  [
    'an event that is not in the log',
    (found) => void toldTo(found, 1).push({ ...told(12), eventId: 'another' }),
    ['forged'],
  ],
  [
    'an event of a group that somebody had left',
    (found) => void toldTo(found, 1).splice(5, 1, opened(cursor(6), cursor(6)), told(7)),
    ['forged'],
  ],
  ['a reset without a reason', (found) => void toldTo(found, 0).splice(7, 0, reset(5)), ['lost']],
  [
    'a reset without a reason that hides a hole',
    (found) => void toldTo(found, 0).splice(6, 4, opened(cursor(7), cursor(8)), reset(8)),
    ['lost'],
  ],

  ['a webhook that was not sent an event', (found) => void requestsOf(found).splice(1, 1), ['lost']],
  ['a webhook that never took an event', (found) => void (requestsOf(found)[4]!.taken = undefined), ['lost']],
  [
    'events of a conversation that were sent in another order',
    (found) => {
      const [last] = requestsOf(found).splice(4, 1);
      requestsOf(found).unshift({ ...last!, came: -2, taken: -1 });
    },
    ['order'],
  ],
  [
    'an event that was sent before the one in front of it was taken',
    (found) => {
      Object.assign(requestsOf(found)[4]!, { came: 1.5 });
    },
    ['order'],
  ],
  ['a request that is not signed', (found) => void (requestsOf(found)[0]!.isRight = false), ['forged']],
  [
    'a request that says something else',
    (found) => {
      requestsOf(found)[1]!.told = { ...told(7), digest: 'other' };
    },
    ['changed'],
  ],
  [
    'a request of a type that was not chosen',
    (found) => void requestsOf(found).push({ ...requestsOf(found)[4]!, told: told(11) }),
    ['forged'],
  ],
  [
    'a request from before the webhook was there',
    (found) => {
      found.endpoints[0]!.types = [];
      found.endpoints[0]!.conversationIds = ['none'];
      requestsOf(found).splice(0, Infinity, { ...requestsOf(found)[0]!, told: told(1) });
    },
    ['forged'],
  ],
  ['a webhook that was told to load all anew', (found) => void (requestsOf(found)[0]!.told = reset(3)), ['lost']],
  ['a webhook that is not active', ({ statuses }) => void statuses.set('hook', 'paused'), ['failed']],
  ['a backlog that is left', (found) => void (found.backlogs = 1), ['not ended']],
];

for (const [what, breakIt, rules] of broken) {
  test(`checkEvents: finds ${what}`, (t) => {
    const found = right();
    breakIt(found);
    t.deepEqual(
      checkEvents(found).map(({ rule }) => rule),
      rules,
    );
  });
}

const fine: [string, (found: EventObservations) => void][] = [
  [
    'a hole that a reset tells, since the log is another one now',
    (found) => {
      toldTo(found, 0).splice(0, 7, opened('', cursorAt({ epoch: epoch - 1, position: 2 })), reset(5));
    },
  ],
  [
    'what a webhook was sent that happened while it was made',
    (found) => {
      requestsOf(found).unshift({ ...requestsOf(found)[0]!, told: told(3), came: -2, taken: -1 });
    },
  ],
  [
    'a twin that a webhook was sent',
    (found) => void requestsOf(found).push({ ...requestsOf(found)[4]!, came: 20, taken: 21 }),
  ],
  ['a stream that begins anew at once', (found) => void toldTo(found, 0).splice(6, 0, opened(cursor(7), cursor(7)))],
];

for (const [what, change] of fine) {
  test(`checkEvents: has nothing against ${what}`, (t) => {
    const found = right();
    change(found);
    t.deepEqual(checkEvents(found), []);
  });
}
