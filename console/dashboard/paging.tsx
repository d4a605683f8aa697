import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Field } from '../shell/components.tsx';
import { goTo, path, query, urlOf } from '../shell/router.ts';
import { numberOf } from './formats.ts';

/** Which part of a list is shown is in its URL, `?page=2`, and so are its filters: Back, Forward and a reload find it again. */

export const pageSize = 20;
const lastPage = 1_000_000;

/** What the hub is asked for, by the URL. */
export function pageAsked(): { limit: number; offset: number } {
  return { limit: pageSize, offset: (pageNumber() - 1) * pageSize };
}

function pageNumber(): number {
  const page = Number(query.value.get('page') ?? 1);
  return Number.isSafeInteger(page) && page >= 1 && page <= lastPage ? page : 1;
}

/** The URL of this view with other parameters. @param changes undefined removes one */
export function urlWith(changes: Readonly<Record<string, string | undefined>>): string {
  const parameters = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) parameters.delete(name);
    else parameters.set(name, value);
  }
  const text = parameters.toString();
  return urlOf(...path.value) + (text === '' ? '' : `?${text}`);
}

/** Which part of a list is shown, with the ways to its other parts. */
export function Pages({
  total,
  of,
}: {
  total: number;
  /** What the list is of: `users`. */
  of: string;
}) {
  const page = pageNumber();
  const pages = Math.max(1, Math.ceil(total / pageSize));
  if (page > pages) {
    return (
      <p class="notice">
        The list ends before this page. <a href={urlWith({ page: undefined })}>Go to its beginning</a>
      </p>
    );
  }
  if (pages === 1) return null;
  const first = (page - 1) * pageSize + 1;
  return (
    <nav class="row apart pages" aria-label={`Pages of ${of}`}>
      <span class="quiet small" role="status">
        {numberOf(first)} to {numberOf(Math.min(total, first + pageSize - 1))} of {numberOf(total)} {of}
      </span>
      <span class="row">
        <PageLink page={page - 1} isThere={page > 1}>
          Previous
        </PageLink>
        <PageLink page={page + 1} isThere={page < pages}>
          Next
        </PageLink>
      </span>
    </nav>
  );
}

function PageLink({ page, isThere, children }: { page: number; isThere: boolean; children: string }) {
  if (!isThere) {
    return (
      <span class="button" role="link" aria-disabled="true">
        {children}
      </span>
    );
  }
  return (
    <a class="button" href={urlWith({ page: page === 1 ? undefined : String(page) })}>
      {children}
    </a>
  );
}

/** A choice among few, each with its URL. */
export function Choices({
  label,
  name,
  choices,
}: {
  label: string;
  /** Of the parameter. */
  name: string;
  /** The values, each with its title. The first is chosen where the URL says nothing. */
  choices: readonly (readonly [value: string, title: string])[];
}) {
  const chosen = chosenOf(name, choices);
  return (
    <div class="choices" role="group" aria-label={label}>
      {choices.map(([value, title], index) => (
        <a
          key={value}
          href={urlWith({ [name]: index === 0 ? undefined : value, page: undefined })}
          aria-current={value === chosen ? 'true' : undefined}
        >
          {title}
        </a>
      ))}
    </div>
  );
}

/** The value that the URL says, if it is one of those; else the first. */
export function chosenOf<Value extends string>(
  name: string,
  choices: readonly (readonly [value: Value, title: string])[],
): Value {
  const said = query.value.get(name);
  return (choices.find(([value]) => value === said) ?? choices[0]!)[0];
}

/** Milliseconds without a key until a search begins. */
const rest = 300;

/** What is searched for is in the URL, as `?q=`. */
export function SearchField({ label }: { label: string }) {
  const asked = query.value.get('q') ?? '';
  const text = useSignal(asked);
  /** What this field has put into the URL last: anything else comes from a link, or from Back. */
  const own = useRef(asked);
  useEffect(() => {
    if (asked === own.current) return;
    own.current = asked;
    text.value = asked;
  }, [asked]);
  useEffect(() => {
    const wanted = text.value.trim();
    if (wanted === own.current) return;
    const timer = setTimeout(() => {
      own.current = wanted;
      goTo(urlWith({ q: wanted === '' ? undefined : wanted, page: undefined }), { replace: true });
    }, rest);
    return () => clearTimeout(timer);
  }, [text.value]);
  return <Field label={label} value={text} type="search" autocomplete="off" autocapitalize="none" />;
}

/** What is searched for, in lower case; empty if nothing is. */
export function wordsSearched(): string {
  return (query.value.get('q') ?? '').trim().toLowerCase();
}

type Page<Entry> = Entry[] & { readonly pagination: { total: number } };

/** A part of a list, by its pages or by a search. */
export interface Listed<Entry> {
  entries: readonly Entry[];
  /** How many there are on all pages; undefined after a search. */
  total: number | undefined;
  /** How many were looked through, where a search has not come to the end. */
  looked: number | undefined;
}

/** How many entries a search looks through at the most, and how many it finds. */
const mostLooked = 2_000;
const mostFound = 100;
const searchedAtOnce = 100;

/** The page that the URL asks for; or what it searches for: the API has no search in its lists, so their pages are looked through. */
export async function listOrSearch<Entry>(
  ask: (page: { limit: number; offset: number }) => Promise<Page<Entry>>,
  textOf: (entry: Entry) => string,
): Promise<Listed<Entry>> {
  const words = wordsSearched();
  if (words === '') {
    const page = await ask(pageAsked());
    return { entries: page, total: page.pagination.total, looked: undefined };
  }
  const entries: Entry[] = [];
  for (let offset = 0; offset < mostLooked; offset += searchedAtOnce) {
    const page = await ask({ limit: searchedAtOnce, offset });
    entries.push(...page.filter((entry) => textOf(entry).toLowerCase().includes(words)));
    if (entries.length > mostFound) return { entries: entries.slice(0, mostFound), total: undefined, looked: offset };
    if (offset + page.length >= page.pagination.total) return { entries, total: undefined, looked: undefined };
  }
  return { entries, total: undefined, looked: mostLooked };
}

/** The end of a list: its pages, or how far a search has come. */
export function ListEnd({ list: { entries, total, looked }, of }: { list: Listed<unknown>; of: string }) {
  if (total !== undefined) return <Pages total={total} of={of} />;
  return (
    <p class="quiet small" role="status">
      {numberOf(entries.length)} found
      {looked !== undefined && entries.length >= mostFound && ', and there are more: search for more letters'}
      {looked !== undefined && entries.length < mostFound && ` among the first ${numberOf(looked)} ${of}`}.
    </p>
  );
}
