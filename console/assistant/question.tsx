import { clockTime, fullTime } from '../shell/times.ts';
import type { Chat } from './chat.ts';
import { changeQuestion, removeQuestion, type Question } from './questions.ts';

/** What the user has asked. It is only ever text. */
export function QuestionItem({ text, at }: { text: string; at: string }) {
  return (
    <article class="message mine" aria-label="Your message">
      <p class="text" dir="auto">
        {text}
      </p>
      <footer>
        <time dateTime={at} title={fullTime(at)}>
          {clockTime(at)}
        </time>
      </footer>
    </article>
  );
}

/** A question that is not in the history yet. */
export function WaitingItem({ question, chat }: { question: Question; chat: Chat }) {
  const { key, message, asked_at, state, reason } = question;
  // What is sent for the first time is mostly accepted at once.
  const isFirstTry = reason === undefined && chat.turn !== undefined && chat.turn.id === undefined;
  return (
    <article class={`message mine ${state}`} aria-label="Your message">
      <p class="text" dir="auto">
        {message}
      </p>
      <footer>
        {state === 'waiting' && !isFirstTry && <span>Not sent yet. {reason}</span>}
        <time dateTime={asked_at} title={fullTime(asked_at)}>
          {clockTime(asked_at)}
        </time>
      </footer>
      {state === 'refused' && (
        <div class="notice bad" role="alert">
          <span>{reason}</span>
          <button
            type="button"
            class="button"
            onClick={() => {
              changeQuestion(key, { state: 'waiting', reason: undefined, asked_at: new Date().toISOString() });
              void chat.work();
            }}
          >
            Send again
          </button>
          <button type="button" class="button plain" onClick={() => removeQuestion(key)}>
            Discard
          </button>
        </div>
      )}
    </article>
  );
}
