import { computed, signal, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Form, fitHeight } from '../shell/components.tsx';
import { SendIcon, StopIcon } from '../shell/icons.tsx';
import { account, nameOfMine } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';
import type { Chat } from './chat.ts';

/** Characters that a question may have. */
const mostCharacters = 32_000;

const approvesName = () => nameOfMine('assistant.approves');
/** What was chosen on this page; what was chosen before is kept. */
const chosen = signal<boolean | undefined>(undefined);
/** Whether tools that destroy something wait for the user. */
export const approves = computed(() => {
  void account.value;
  return chosen.value ?? (kept.get(approvesName()) as boolean | undefined) ?? true;
});

/** Where one writes, or ends the answer under way. What is typed is kept until it is asked. */
export function Composer({
  chat,
  field,
  asked,
}: {
  chat: Chat;
  field: { current: HTMLTextAreaElement | null };
  asked: () => void;
}) {
  const draftName = nameOfMine(`assistant.draft.${chat.id ?? 'new'}`);
  const text = useSignal((kept.get(draftName) as string | undefined) ?? '');
  const isTooLong = text.value.length > mostCharacters;
  const isEmpty = text.value.trim() === '';
  const { isFree } = chat;
  void chat.progress.value;
  const { turn } = chat;
  const isUnderWay = turn !== undefined;

  useEffect(() => {
    fitHeight(field.current);
    if (matchMedia('(hover: hover)').matches) field.current?.focus();
  }, [chat]);

  const keptAs = useRef(draftName);
  useEffect(() => {
    if (keptAs.current === draftName) return;
    // The conversation has got its id.
    kept.set(keptAs.current, undefined);
    kept.set(draftName, text.peek() === '' ? undefined : text.peek());
    keptAs.current = draftName;
  }, [draftName]);

  const keep = (value: string) => {
    text.value = value;
    kept.set(draftName, value === '' ? undefined : value);
  };
  const submit = () => {
    if (isEmpty || isTooLong || !isFree) return;
    const message = text.value.toWellFormed().replaceAll('\0', '');
    keep('');
    chat.ask(message, approves.peek());
    asked();
    requestAnimationFrame(() => fitHeight(field.current));
  };

  return (
    <Form class="composer" aria-label="Ask the assistant" submit={submit}>
      <div class="options">
        <label>
          <input
            type="checkbox"
            checked={approves.value}
            onChange={({ currentTarget: { checked } }) => {
              chosen.value = checked;
              kept.set(approvesName(), checked);
            }}
          />
          Ask me before something is deleted
        </label>
        {isTooLong && <span class="wrong">A question may have 32,000 characters: this one is too long.</span>}
      </div>
      <textarea
        ref={field}
        class="input"
        rows={1}
        dir="auto"
        aria-label="Message to the assistant"
        placeholder="Message to the assistant"
        value={text.value}
        onInput={({ currentTarget }) => {
          keep(currentTarget.value);
          fitHeight(currentTarget);
        }}
        onKeyDown={(event) => {
          // While a word is being composed, Enter ends that.
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          submit();
        }}
      />
      <button
        type={isUnderWay ? 'button' : 'submit'}
        class={isUnderWay ? 'button icon' : 'button main icon'}
        aria-label={isUnderWay ? 'Stop' : 'Send'}
        // It keeps the focus while it can't be pressed.
        aria-disabled={isUnderWay ? turn.id === undefined || turn.isAsked : isEmpty || isTooLong || !isFree}
        onClick={() => {
          if (isUnderWay) void chat.stop();
        }}
      >
        {isUnderWay ? <StopIcon /> : <SendIcon />}
      </button>
    </Form>
  );
}
