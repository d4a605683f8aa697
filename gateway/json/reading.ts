/** One wrong field: its path in proto names (of a very long one the beginning), and the path as the client wrote it. */
export interface Violation {
  field: string;
  sent: string;
  description: string;
  /** What isn't met, for programs. */
  rule: string;
}

/** Where a value is: in proto names, and in the names that the client used. */
export interface Place {
  field: string;
  sent: string;
}

/** The most wrong fields that are named in one answer. */
const maxViolations = 500;
/** The characters of a path in proto names that are kept: it goes to backends in a header, and may hold a key of a map. */
const maxPath = 200;
/** A path with more characters names what holds a value, rather than the value. */
const maxSpelledPath = 2_000;
/** The total length of the paths whose spelling is kept for one request. */
const maxSpelled = 1024 * 1024;

/** What is learned about a request while it is read: what is wrong with it, and how the client spelled its fields. */
export class Reading {
  readonly violations: Violation[] = [];
  /** Whether a member of the body that is not a field is an error. */
  readonly knowsAll: boolean;
  /** Whether the request asks for server-sent events, where it can. */
  asksForEvents = false;
  readonly #spellings = new Map<string, string>();
  #spelled = 0;

  constructor(knowsAll = false) {
    this.knowsAll = knowsAll;
  }

  /** @param rule what isn't met, for programs: as in FieldViolation */
  fail({ field, sent }: Place, description: string, rule = 'type'): void {
    if (this.violations.length >= maxViolations) return;
    this.violations.push({ field: field.slice(0, maxPath).toWellFormed(), sent: sent || field, description, rule });
  }

  /** Notes that a member of the body is no field. */
  failUnknown(parent: Place, key: string): void {
    const name = key.slice(0, maxPath).toWellFormed();
    this.fail(child(parent, name, name), 'is no field that can be given here', 'unknown');
  }

  /** Notes that the client wrote `sent` for `field`, unless there is too much to note. */
  spell({ field, sent }: Place): void {
    if (field === sent || this.#spelled > maxSpelled) return;
    this.#spelled += field.length;
    this.#spellings.set(field, sent);
  }

  /** Forgets what was found out about a field, because its value now comes from elsewhere. */
  forget(field: string): void {
    this.#spellings.delete(field);
    const others = this.violations.filter((violation) => violation.field !== field);
    if (others.length < this.violations.length) this.violations.splice(0, Infinity, ...others);
  }

  /** A path in proto names as the client would write it: as it spelled the field, or else what holds the field. */
  asSent(field: string): string {
    if (this.#spellings.size === 0) return field;
    for (let end = field.length; end > 0; end = lastStep(field, end)) {
      const sent = this.#spellings.get(field.slice(0, end));
      if (sent === undefined) continue;
      const rest = field.slice(end);
      return sent === nameless ? rest.replace(/^\./, '') || field : sent + rest;
    }
    return field;
  }
}

/** Where the last step of a path (`.name` or `[key]`) begins, looking at its first `end` characters. */
function lastStep(path: string, end: number): number {
  return Math.max(path.lastIndexOf('.', end - 1), path.lastIndexOf('[', end - 1), 0);
}

/** How a client spells a field that is itself the body: only what is in it has a name. */
export const nameless = '';

/** The top of a request. */
export const root: Place = { field: '', sent: '' };

/** The place of a field in the message at `parent`, which the client called `key`. */
export function child(parent: Place, name: string, key: string): Place {
  if (isLong(parent)) return parent;
  const field = parent.field === '' ? name : `${parent.field}.${name}`;
  if (key === name && parent.sent === parent.field) return { field, sent: field };
  return { field, sent: parent.sent === '' ? key : `${parent.sent}.${key}` };
}

/** Keys of maps are as long as clients like, and a path would repeat them for each value below. */
function isLong({ field, sent }: Place): boolean {
  return field.length > maxSpelledPath || sent.length > maxSpelledPath;
}

/** The place of an item of a list or map. */
export function step(parent: Place, key: string): Place {
  if (isLong(parent)) return parent;
  const field = parent.field + key;
  return { field, sent: parent.sent === parent.field ? field : parent.sent + key };
}
