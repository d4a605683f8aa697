import test from 'ava';
import type { ChatObservations, ChatRow } from './chatters.ts';
import { checkChats } from './checker-chats.ts';

const user = (id: string, content: string): ChatRow => ({
  id,
  role: 'user',
  content,
  status: 'completed',
  toolCalls: [],
  siblings: [],
});
const answer = (id: string, content: string, more: Partial<ChatRow> = {}): ChatRow => ({
  ...user(id, content),
  role: 'assistant',
  ...more,
});

/** Two messages as they should be: one that is answered at the second try, after a tool, and one that the model has failed. */
function right(): ChatObservations {
  return {
    messages: [
      {
        userId: 'ada',
        text: 'Task 1',
        isAccepted: true,
        answer: { messageId: '3', text: 'Done.' },
        tries: [
          { status: 502, code: 'PROVIDER_ERROR' },
          { status: 200, code: '' },
        ],
      },
      {
        userId: 'ada',
        text: 'Question 2',
        isAccepted: true,
        answer: undefined,
        tries: [{ status: 502, code: 'PROVIDER_ERROR' }],
      },
    ],
    sayings: [
      { question: 'Task 1', text: 'Do', isWhole: false },
      { question: 'Task 1', text: 'Done.', isWhole: true },
      { question: 'Question 2', text: 'I thi', isWhole: false },
    ],
    wanted: new Set(['one']),
    histories: [
      {
        userId: 'ada',
        rows: [
          user('1', 'Task 1'),
          answer('3', 'Done.', {
            toolCalls: [{ id: 'call', title: 'one', isError: false }],
            siblings: [answer('2', 'Do', { status: 'failed' })],
          }),
          user('4', 'Question 2'),
          answer('5', 'I thi', { status: 'failed' }),
        ],
      },
    ],
    tasks: new Map([['ada', ['one']]]),
  };
}

const rowsOf = ({ histories }: ChatObservations) => histories[0]!.rows;

test('checkChats: finds nothing where all that was written and said is there', (t) => {
  t.deepEqual(checkChats(right()), []);
});

const broken: [string, (observations: ChatObservations) => void, string[]][] = [
  ['a message that is lost', (found) => void rowsOf(found).splice(2, 2), ['lost']],
  ['a message that is there twice', (found) => void rowsOf(found).push(user('6', 'Question 2')), ['doubled']],
  ['a message that nobody wrote', (found) => void rowsOf(found).push(user('6', 'Question 3')), ['forged']],
  ['an answer that is another one', (found) => void (found.messages[0]!.answer!.text = 'Do.'), ['changed']],
  ['an answer that no model gave', (found) => void (rowsOf(found)[3]!.content = 'I know'), ['forged']],
  ['half an answer that reads as a whole one', (found) => void (rowsOf(found)[3]!.status = 'completed'), ['forged']],
  ['an answer without an end', (found) => void (rowsOf(found)[3]!.status = 'streaming'), ['not ended']],
  ['a task that is there twice', ({ tasks }) => void tasks.get('ada')!.push('one'), ['doubled']],
  ['a task that the model did not want', ({ wanted }) => wanted.clear(), ['forged']],
  ['a task that no answer tells of', (found) => void (rowsOf(found)[1]!.toolCalls = []), ['lost']],
  ['a call without an effect', ({ tasks }) => void tasks.set('ada', []), ['no effect']],
  ['an internal error', ({ messages }) => void (messages[1]!.tries[0]!.status = 500), ['internal error']],
];

for (const [what, breakIt, rules] of broken) {
  test(`checkChats: finds ${what}`, (t) => {
    const observations = right();
    breakIt(observations);
    t.deepEqual(
      checkChats(observations).map(({ rule }) => rule),
      rules,
    );
  });
}
