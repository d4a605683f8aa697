import { signal, useSignal, type Signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useMemo, useRef } from 'preact/hooks';
import { fieldErrors, wordsFor } from './errors.ts';
import { CloseIcon } from './icons.tsx';

/** What all parts are made of. Styles are in components.css. */

export function Field({
  label,
  value,
  hint,
  wrong,
  ...input
}: {
  label: string;
  value: Signal<string>;
  hint?: string | undefined;
  /** What is wrong with the value. */
  wrong?: string | undefined;
  type?: 'text' | 'email' | 'password' | 'search' | 'date' | 'url';
  autocomplete?: string;
  autocapitalize?: 'none';
  placeholder?: string;
  required?: boolean;
  readOnly?: boolean;
}) {
  return (
    <Labelled label={label} hint={hint} wrong={wrong}>
      {(attributes) => (
        <input
          // What is allowed beside each `type` is declared of each apart.
          {...(input as object)}
          {...attributes}
          class="input"
          value={value.value}
          onInput={(event) => (value.value = event.currentTarget.value)}
        />
      )}
    </Labelled>
  );
}

/** What surrounds an input: its label, a hint, and what is wrong with it. `children` makes the input, with these attributes. */
export function Labelled({
  label,
  hint,
  wrong,
  children,
}: {
  label: string;
  hint?: string | undefined;
  wrong?: string | undefined;
  children: (attributes: {
    id: string;
    'aria-invalid': boolean;
    'aria-describedby': string | undefined;
  }) => ComponentChildren;
}) {
  const id = useId();
  const notes = [hint === undefined ? [] : `${id}-hint`, wrong === undefined ? [] : `${id}-wrong`].flat().join(' ');
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({
        id,
        'aria-invalid': wrong !== undefined,
        'aria-describedby': notes === '' ? undefined : notes,
      })}
      {hint !== undefined && (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
      {wrong !== undefined && (
        <span class="wrong" id={`${id}-wrong`}>
          {wrong}
        </span>
      )}
    </div>
  );
}

/** Something that somebody has asked for: what it shows while it is under way, and what it says when it has failed. */
export interface Action {
  isRunning: Signal<boolean>;
  error: Signal<unknown>;
  /** What is wrong with each field, as the hub has said. */
  wrong(field: string): string | undefined;
  run(work: () => Promise<void>): Promise<void>;
}

/** Runs one thing at a time: while it is under way, asking for it again does nothing. */
export function useAction(): Action {
  return useMemo(() => {
    const isRunning = signal(false);
    const error = signal<unknown>(undefined);
    return {
      isRunning,
      error,
      wrong: (field) => fieldErrors(error.value)[field],
      async run(work) {
        if (isRunning.peek()) return;
        isRunning.value = true;
        error.value = undefined;
        try {
          await work();
        } catch (failure) {
          error.value = failure;
        } finally {
          isRunning.value = false;
        }
      },
    };
  }, []);
}

/** A form whose page does what it is for, mostly as an action, and stays. */
export function Form({
  submit,
  children,
  ...attributes
}: {
  submit: () => void | Promise<void>;
  class?: string;
  'aria-label'?: string;
  children: ComponentChildren;
}) {
  return (
    <form
      {...attributes}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      {children}
    </form>
  );
}

/** What went wrong, as far as no field says it. */
export function Failure({ of: { error }, fields = [] }: { of: Action; fields?: readonly string[] }) {
  const { value } = error;
  if (value === undefined) return null;
  const named = Object.keys(fieldErrors(value));
  if (named.length > 0 && named.every((name) => fields.includes(name))) return null;
  return (
    <p class="notice bad" role="alert">
      {wordsFor(value)}
    </p>
  );
}

/** Milliseconds after which loading is called slow. */
const slow = 5_000;

/** Says that something loads. It appears after a moment (components.css): what is quick needs no words. */
export function Loading({ what }: { what: string }) {
  const isSlow = useSignal(false);
  useEffect(() => {
    const timer = setTimeout(() => (isSlow.value = true), slow);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class="state loading" role="status">
      <div class="busy" aria-hidden="true" />
      <p>
        Loading {what}…{isSlow.value && ' This takes longer than usual.'}
      </p>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="state">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Says why something could not be loaded, and lets one try again. */
export function Failed({ what, error, again }: { what: string; error: unknown; again: () => void }) {
  return (
    <div class="state" role="alert">
      <h2>Can’t load {what}</h2>
      <p>{wordsFor(error)}</p>
      <button type="button" class="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}

/** A dialog over everything else: Escape closes it, and the focus goes back to where it was. */
export function Dialog({
  title,
  close,
  children,
}: {
  title: string;
  /** undefined: it can't be closed. */
  close: (() => void) | undefined;
  children: ComponentChildren;
}) {
  const id = useId();
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        close?.();
      }}
      onClose={({ currentTarget }) => {
        // Browsers close it all the same where Escape is pressed twice.
        if (!currentTarget.isConnected) return;
        if (close === undefined) currentTarget.showModal();
        else close();
      }}
    >
      <div class="row apart">
        <h2 id={id}>{title}</h2>
        {close !== undefined && (
          <button type="button" class="button plain icon" aria-label="Close" onClick={close}>
            <CloseIcon />
          </button>
        )}
      </div>
      {children}
    </dialog>
  );
}

/** Lets the field grow with its text, as far as its style allows. */
export function fitHeight(field: HTMLTextAreaElement | null): void {
  if (field === null) return;
  field.style.height = 'auto';
  field.style.height = `${field.scrollHeight + 2}px`;
}
