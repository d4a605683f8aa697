import test from 'ava';
import { checkTools } from './checker-tools.ts';
import type { ToolObservations } from './invokers.ts';

/** Three invocations as they should be: one that went well, one that was cut off, one that was refused. */
function right(): ToolObservations {
  return {
    calls: [
      { requestId: 'well', userId: 'ada', status: 200, code: '', tokens: 5 },
      { requestId: 'cut', userId: 'ada', status: 0, code: 'ECONNRESET', tokens: 0 },
      { requestId: 'refused', userId: 'bob', status: 403, code: 'TOKEN_LIMIT_EXCEEDED', tokens: 0 },
    ],
    said: new Map([
      ['well', 5],
      ['cut', 7],
    ]),
    usage: [
      { requestId: 'well', userId: 'ada', status: 'success', tokens: 5 },
      { requestId: 'cut', userId: 'ada', status: 'error', tokens: 0 },
    ],
    counted: new Map([
      ['ada', 5],
      ['bob', 0],
    ]),
    summed: { tokens: 5, invocations: 2 },
    left: { reservations: 0, outbox: 0 },
  };
}

test('checkTools: finds nothing where everything adds up, whether or not a caller heard of it', (t) => {
  t.deepEqual(checkTools(right()), []);
  const unheard = right();
  Object.assign(unheard.usage[1]!, { status: 'success', tokens: 7 });
  unheard.counted.set('ada', 12);
  unheard.summed.tokens = 12;
  t.deepEqual(checkTools(unheard), []);
});

const broken: [string, (observations: ToolObservations) => void, string[]][] = [
  ['an answer that is not counted', ({ usage }) => void usage.shift(), ['lost', 'lost', 'books', 'books']],
  ['a free call', ({ usage, summed }) => (usage.pop(), (summed.invocations -= 1)), ['lost']],
  [
    'a call that is counted twice',
    ({ usage, counted, summed }) => {
      usage.push({ ...usage[0]! });
      counted.set('ada', 10);
      summed.tokens = 10;
      summed.invocations = 3;
    },
    ['doubled'],
  ],
  ['a failure that costs', ({ usage }) => void (usage[1]!.tokens = 7), ['books', 'books', 'books']],
  ['another cost than the tool said', ({ said }) => void said.set('well', 6), ['books']],
  [
    'a refused call that is counted',
    ({ usage, summed }) => {
      usage.push({ requestId: 'refused', userId: 'bob', status: 'error', tokens: 0 });
      summed.invocations += 1;
    },
    ['forged'],
  ],
  [
    'a call that nobody made',
    ({ usage, summed }) => {
      usage.push({ requestId: 'other', userId: 'bob', status: 'error', tokens: 0 });
      summed.invocations += 1;
    },
    ['forged'],
  ],
  ['a call that is counted for somebody else', ({ usage }) => void (usage[1]!.userId = 'bob'), ['changed']],
  ['a counter that is wrong', ({ counted }) => void counted.set('bob', 1), ['books']],
  ['a day that is wrong', ({ summed }) => void (summed.tokens += 1), ['books']],
  ['what is left', ({ left }) => void (left['reservations'] = 1), ['orphan']],
  ['an internal error', ({ calls }) => void (calls[1]!.status = 500), ['internal error']],
];

for (const [what, breakIt, rules] of broken) {
  test(`checkTools: finds ${what}`, (t) => {
    const observations = right();
    breakIt(observations);
    t.deepEqual(
      checkTools(observations).map(({ rule }) => rule),
      rules,
    );
  });
}
