/** Times as people read them, in the language and time zone of their browser. */

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const dayOfYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const longDay = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

function isSameDay(a: Date, b: Date): boolean {
  return a.toDateString() === b.toDateString();
}

/** The hour of today, or else the day. @param time RFC 3339 */
export function briefTime(time: string, now = new Date()): string {
  const date = new Date(time);
  if (isSameDay(date, now)) return clock.format(date);
  return (date.getFullYear() === now.getFullYear() ? day : dayOfYear).format(date);
}

export function clockTime(time: string): string {
  return clock.format(new Date(time));
}

export function fullTime(time: string): string {
  return full.format(new Date(time));
}

/** The day of a time, for the line between two days. */
export function dayOf(time: string): string {
  return longDay.format(new Date(time));
}

export function areSameDay(a: string, b: string): boolean {
  return isSameDay(new Date(a), new Date(b));
}
