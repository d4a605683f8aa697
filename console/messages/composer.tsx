import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Form, fitHeight } from '../shell/components.tsx';
import { AttachIcon, SendIcon } from '../shell/icons.tsx';
import { nameOfMine } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';
import { send } from './outbox.ts';
import { channelTitle, knownChannels } from './ticks.ts';
import { tellTyping } from './typing.ts';
import { upload } from './uploads.ts';

/** Bytes that a text may have. */
const mostBytes = 65_536;
const encoder = new TextEncoder();

const channelsName = (conversation: string) => nameOfMine(`channels.${conversation}`);

/** The channels that were chosen last for a conversation; all of them until then. */
export function chosenChannels(conversation: string): string[] {
  return (kept.get(channelsName(conversation)) as string[] | undefined) ?? [...knownChannels];
}

/** Where one writes. What is typed is kept until it is sent. */
export function Composer({ conversation, sent }: { conversation: string; sent: () => void }) {
  const draftName = nameOfMine(`draft.${conversation}`);
  const text = useSignal((kept.get(draftName) as string | undefined) ?? '');
  const channels = useSignal(chosenChannels(conversation));
  const field = useRef<HTMLTextAreaElement>(null);
  const chooser = useRef<HTMLInputElement>(null);
  // The bytes are counted only where there may be too many: a character has three of them at the most for each unit of its text.
  const isTooLong = text.value.length * 3 > mostBytes && encoder.encode(text.value).length > mostBytes;
  const isEmpty = text.value.trim() === '';

  useEffect(() => {
    fitHeight(field.current);
    if (matchMedia('(hover: hover)').matches) field.current?.focus();
  }, [conversation]);

  const submit = () => {
    if (isEmpty || isTooLong || channels.value.length === 0) return;
    send({
      conversation_id: conversation,
      channels: channels.value,
      payload: { type: 'text', text: text.value.toWellFormed().replaceAll('\0', '') },
    });
    text.value = '';
    kept.set(draftName, undefined);
    sent();
    requestAnimationFrame(() => fitHeight(field.current));
  };

  return (
    <Form class="composer" aria-label="Write a message" submit={submit}>
      <fieldset class="options">
        <legend class="hidden-text">Send over</legend>
        {knownChannels.map((channel) => (
          <label key={channel}>
            <input
              type="checkbox"
              checked={channels.value.includes(channel)}
              onChange={({ currentTarget: { checked } }) => {
                channels.value = knownChannels.filter((each) =>
                  each === channel ? checked : channels.value.includes(each),
                );
                kept.set(channelsName(conversation), channels.value);
              }}
            />
            {channelTitle(channel)}
          </label>
        ))}
        {channels.value.length === 0 && <span class="wrong">Choose at least one channel.</span>}
        {isTooLong && <span class="wrong">A message may have 64 KiB: this one is too long.</span>}
      </fieldset>
      <button
        type="button"
        class="button plain icon"
        disabled={channels.value.length === 0}
        aria-label="Attach files"
        onClick={() => chooser.current?.click()}
      >
        <AttachIcon />
      </button>
      <input
        ref={chooser}
        type="file"
        multiple
        hidden
        aria-label="Files to send"
        onChange={({ currentTarget }) => {
          for (const file of currentTarget.files ?? []) upload(conversation, channels.value, file);
          currentTarget.value = '';
          sent();
        }}
      />
      <textarea
        ref={field}
        class="input"
        rows={1}
        dir="auto"
        aria-label="Message"
        placeholder="Message"
        value={text.value}
        onInput={({ currentTarget }) => {
          text.value = currentTarget.value;
          kept.set(draftName, currentTarget.value === '' ? undefined : currentTarget.value);
          fitHeight(currentTarget);
          if (currentTarget.value !== '') tellTyping(conversation);
        }}
        onPaste={(event) => {
          const files = [...(event.clipboardData?.files ?? [])];
          if (files.length === 0 || channels.value.length === 0) return;
          event.preventDefault();
          for (const file of files) upload(conversation, channels.value, file);
        }}
        onKeyDown={(event) => {
          // While a word is being composed, Enter ends that.
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          submit();
        }}
      />
      <button class="button main icon" aria-label="Send" disabled={isEmpty || isTooLong || channels.value.length === 0}>
        <SendIcon />
      </button>
    </Form>
  );
}
