import { formatOf } from '../shell/times.ts';

/** Days and numbers as people read them, in the language of their browser. */

const date = formatOf(() => new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' }));
const shortDay = formatOf(
  () => new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', timeZone: 'UTC' }),
);
const longDay = formatOf(() => new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeZone: 'UTC' }));
const number = formatOf(() => new Intl.NumberFormat());
const compact = formatOf(() => new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 }));
const price = formatOf(() => new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 }));

/** The day of a time, where the browser is. @param time RFC 3339 */
export function dateOf(time: string): string {
  return date(new Date(time));
}

/** A day without its year. @param day of UTC, as the hub counts them: `2026-11-29` */
export function shortDayOf(day: string): string {
  return shortDay(new Date(day));
}

/** @param day of UTC: `2026-11-29` */
export function longDayOf(day: string): string {
  return longDay(new Date(day));
}

const dayLength = 86_400_000;

/** The last days of UTC, today included, the earliest first: `2026-11-29`. */
export function lastDays(count: number, now = Date.now()): string[] {
  return Array.from({ length: count }, (_, index) =>
    new Date(now - (count - 1 - index) * dayLength).toISOString().slice(0, 10),
  );
}

export function numberOf(value: number): string {
  return number(value);
}

/** A number in few characters: 12,300 is 12.3K. */
export function compactOf(value: number): string {
  return compact(value);
}

/** The hub has no currency: a price is a number. */
export function priceOf(value: number): string {
  return price(value);
}

/** A duration in words. @param ms milliseconds */
export function durationOf(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

/** `1 token`, `2 tokens`. */
export function countOf(count: number, one: string, several = `${one}s`): string {
  return `${numberOf(count)} ${count === 1 ? one : several}`;
}

/** A name of the API as a word that begins a sentence: `in_flight` is `In flight`. */
export function wordOf(name: string): string {
  const text = name.replaceAll('_', ' ');
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
