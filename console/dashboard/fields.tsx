import { useSignal, type Signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef } from 'preact/hooks';
import { Dialog, Failure, Labelled, useAction } from '../shell/components.tsx';
import { BackIcon } from '../shell/icons.tsx';

/** What several views of the dashboard are made of. */

/** Whether the page was loaded with the view that is shown first: then the focus stays at the beginning. */
let isArrival = true;

/** The heading of a view. It takes the focus where what had it is gone: a link that led here, most often. */
export function Title({
  children,
  back,
  beside,
}: {
  children: ComponentChildren;
  /** Where a view below another one leads back to. */
  back?: { url: string; title: string };
  /** What one can do here. */
  beside?: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    const isLost = document.activeElement === null || document.activeElement === document.body;
    if (isLost && !isArrival) heading.current?.focus();
    isArrival = false;
  }, []);
  return (
    <header class="view-title">
      {back !== undefined && (
        <a class="button plain icon" href={back.url} aria-label={`Back to ${back.title}`}>
          <BackIcon />
        </a>
      )}
      <h2 class="part-title" ref={heading} tabIndex={-1} dir="auto">
        {children}
      </h2>
      {beside !== undefined && <div class="row beside">{beside}</div>}
    </header>
  );
}

/** A field of several lines. */
export function LinesField({
  label,
  value,
  hint,
  wrong,
  rows = 4,
  isCode = false,
  required = false,
  changed,
}: {
  label: string;
  value: Signal<string>;
  hint?: string;
  wrong?: string | undefined;
  rows?: number;
  /** Whether it is written in a language of machines. */
  isCode?: boolean;
  required?: boolean;
  changed?: (value: string) => void;
}) {
  return (
    <Labelled label={label} hint={hint} wrong={wrong}>
      {(attributes) => (
        <textarea
          {...attributes}
          class={isCode ? 'input code' : 'input'}
          rows={rows}
          required={required}
          spellcheck={!isCode}
          dir={isCode ? 'ltr' : 'auto'}
          value={value.value}
          onInput={({ currentTarget }) => {
            value.value = currentTarget.value;
            changed?.(currentTarget.value);
          }}
        />
      )}
    </Labelled>
  );
}

/** A field of which one of a few is chosen. */
export function ChoiceField({
  label,
  value,
  choices,
}: {
  label: string;
  value: Signal<string>;
  choices: readonly (readonly [value: string, title: string])[];
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        class="input"
        value={value.value}
        onChange={({ currentTarget }) => (value.value = currentTarget.value)}
      >
        {choices.map(([each, title]) => (
          <option key={each} value={each}>
            {title}
          </option>
        ))}
      </select>
    </div>
  );
}

/** Asks before something is done that can't be taken back, or that costs something. */
export function Confirm({
  title,
  verb,
  isDangerous = false,
  work,
  close,
  children,
}: {
  title: string;
  /** On the button that does it. */
  verb: string;
  isDangerous?: boolean;
  work: () => Promise<void>;
  close: () => void;
  children: ComponentChildren;
}) {
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      await work();
      close();
    });
  return (
    <Dialog title={title} close={close}>
      <div class="stack">
        {children}
        <Failure of={action} />
        <div class="row">
          <button
            type="button"
            class={isDangerous ? 'button danger' : 'button main'}
            disabled={action.isRunning.value}
            onClick={() => void submit()}
          >
            {verb}
          </button>
          <button type="button" class="button" onClick={close}>
            Go back
          </button>
        </div>
      </div>
    </Dialog>
  );
}

/** A secret that the hub shows once: in a dialog that only its button closes, so that nobody closes it by mistake. */
export function Secret({
  title,
  label,
  value,
  close,
  children,
}: {
  title: string;
  label: string;
  value: string;
  close: () => void;
  children?: ComponentChildren;
}) {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const said = useSignal('');
  useEffect(() => field.current?.select(), []);
  const copy = async () => {
    field.current?.select();
    try {
      // Without TLS there is no clipboard on other hosts than localhost.
      await navigator.clipboard.writeText(value);
      said.value = 'Copied.';
    } catch {
      said.value = 'Your browser does not let a page copy. It is marked: copy it with the keyboard.';
    }
  };
  return (
    <Dialog title={title} close={undefined}>
      <div class="stack">
        <p>Keep it in a safe place now: it is not shown again.</p>
        <div class="field">
          <label for={id}>{label}</label>
          <input ref={field} id={id} class="input code" value={value} readOnly spellcheck={false} autocomplete="off" />
        </div>
        {children}
        <div class="row">
          <button type="button" class="button main" onClick={() => void copy()}>
            Copy
          </button>
          <button type="button" class="button" onClick={close}>
            I have kept it
          </button>
          <span role="status" class="quiet">
            {said}
          </span>
        </div>
      </div>
    </Dialog>
  );
}

/** Characters of a JSON text that are shown at once. */
const shownAtOnce = 20_000;

/** An object as JSON, for whoever reads it as such. */
export function Json({ label, value }: { label: string; value: unknown }) {
  const isWhole = useSignal(false);
  const text = JSON.stringify(value, null, 2);
  const isCut = text.length > shownAtOnce && !isWhole.value;
  return (
    <>
      <pre class="code json" tabIndex={0} role="region" aria-label={label}>
        {isCut ? `${text.slice(0, shownAtOnce).toWellFormed()}…` : text}
      </pre>
      {isCut && (
        <button type="button" class="button plain" onClick={() => (isWhole.value = true)}>
          Show all of it
        </button>
      )}
    </>
  );
}

/** A word on how something is. */
export function Mark({ is, children }: { is: 'good' | 'bad' | 'warn' | 'quiet'; children: ComponentChildren }) {
  return <span class={`mark-word ${is}`}>{children}</span>;
}

/** A table that is scrolled by itself where the page is too narrow for it. */
export function Table({
  label,
  heads,
  children,
}: {
  label: string;
  /** The titles of the columns. One that begins with `#` is a column of numbers. */
  heads: readonly string[];
  children: ComponentChildren;
}) {
  return (
    <div class="scroll-x" tabIndex={0} role="region" aria-label={label}>
      <table class="table">
        <thead>
          <tr>
            {heads.map((head) => (
              <th key={head} scope="col" class={head.startsWith('#') ? 'number' : undefined}>
                {head.replace(/^#/, '')}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
