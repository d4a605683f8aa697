/** Times as people read them, in the language and time zone of their browser. */

/** A format that is made when it is first needed: each takes a browser milliseconds, which the first load would have to wait for. */
export function formatOf<Value>(make: () => { format(value: Value): string }): (value: Value) => string {
  let made: ReturnType<typeof make> | undefined;
  return (value) => (made ??= make()).format(value);
}

const clock = formatOf(() => new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' }));
const day = formatOf(() => new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' }));
const dayOfYear = formatOf(
  () => new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' }),
);
const longDay = formatOf(
  () => new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }),
);
const full = formatOf(() => new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' }));

function isSameDay(a: Date, b: Date): boolean {
  return a.toDateString() === b.toDateString();
}

/** The hour of today, or else the day. @param time RFC 3339 */
export function briefTime(time: string, now = new Date()): string {
  const date = new Date(time);
  if (isSameDay(date, now)) return clock(date);
  return (date.getFullYear() === now.getFullYear() ? day : dayOfYear)(date);
}

export function clockTime(time: string): string {
  return clock(new Date(time));
}

export function fullTime(time: string): string {
  return full(new Date(time));
}

/** The day of a time, for the line between two days. */
export function dayOf(time: string): string {
  return longDay(new Date(time));
}

export function areSameDay(a: string, b: string): boolean {
  return isSameDay(new Date(a), new Date(b));
}
