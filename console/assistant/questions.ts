import { signal } from '@preact/signals';
import { newId } from '../shell/ids.ts';
import { nameOfMine } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';

/**
 * What somebody has asked, and the hub has not accepted yet. Each question has its idempotency key from the moment it is asked, and is kept with
 * it through reloads and lost connections until its answer has begun: however often it is sent, it is asked once.
 */

export interface Question {
  /** The idempotency key. */
  key: string;
  /** The conversation; undefined if the question begins one. */
  conversation: number | undefined;
  message: string;
  /** Whether tools that destroy something wait for the user. */
  approve: boolean;
  /** RFC 3339. */
  asked_at: string;
  /** `waiting` to be sent, or to be sent again; `accepted`, but not in the history that is shown; `refused`, with the reason. */
  state: 'waiting' | 'accepted' | 'refused';
  /** Why it was refused, or not taken the last time that it was sent: empty where the hub was not reached. */
  reason?: string;
  /** The id of its answer, once it is accepted. */
  answer?: number;
}

/** All of them, in the order in which they were asked. */
export const questions = signal<readonly Question[]>([]);

/** Hours for which the hub knows an idempotency key. After that, a question that is sent again could be asked twice. */
const hoursKnown = 24;

const keptName = (key: string) => nameOfMine(`question.${key}`);

/** Finds what was not accepted before a reload. */
export function findQuestions(): void {
  const oldest = new Date(Date.now() - hoursKnown * 3_600_000).toISOString();
  questions.value = kept
    .names(nameOfMine('question.'))
    .map((name) => kept.get(name) as Question)
    .toSorted((a, b) => (a.asked_at < b.asked_at ? -1 : 1))
    .map((question) =>
      question.state === 'waiting' && question.asked_at < oldest
        ? { ...question, state: 'refused', reason: 'It could not be sent for a day. Is it still to be asked?' }
        : question,
    );
}

/** Takes a question, to be sent. */
export function addQuestion(asked: Pick<Question, 'conversation' | 'message' | 'approve'>): Question {
  const question: Question = { key: newId(), ...asked, asked_at: new Date().toISOString(), state: 'waiting' };
  kept.set(keptName(question.key), question);
  questions.value = [...questions.peek(), question];
  return question;
}

export function changeQuestion(key: string, changes: Partial<Question>): void {
  questions.value = questions.peek().map((each) => (each.key === key ? { ...each, ...changes } : each));
  const changed = questions.peek().find((each) => each.key === key);
  kept.set(keptName(key), changed?.state === 'accepted' ? undefined : changed);
}

export function removeQuestion(key: string): void {
  questions.value = questions.peek().filter((each) => each.key !== key);
  kept.set(keptName(key), undefined);
}
