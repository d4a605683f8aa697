/** How messages look in JSON, and where in an HTTP request they travel. */

/** A message in an answer: every field is there, also those that a request may leave out. */
export type Answered<T> = T extends readonly (infer Item)[]
  ? Answered<Item>[]
  : T extends Uint8Array
    ? never
    : T extends object
      ? { [Name in keyof T]-?: Answered<Exclude<T[Name], undefined>> }
      : T;

/** A part of a list, with what is said of the whole. That is no part of its JSON. */
export type Page<List, Pagination> = List & { readonly pagination: Pagination };

/** At most one of the members. */
export type OneOf<T> =
  | { [Name in keyof T]?: never }
  | { [Name in keyof T]: Pick<T, Name> & { [Other in Exclude<keyof T, Name>]?: never } }[keyof T];

/** A message of any type: its fields, or `value` if its JSON is no object. */
export type Any = { '@type': string; [field: string]: unknown };

/** An event of a stream, by its type: its id in the stream, and what it tells. */
export type EventOf<Id, Data> = { [Type in keyof Data]: { type: Type; id: Id; data: Data[Type] } }[keyof Data];

/** Where the parts of an RPC's request travel, as google.api.http says it. */
export interface Rule {
  /** The HTTP method. */
  verb: string;
  /** `/v1/conversations/{conversation_id}/messages`; a variable may have a pattern, `{name=shelves/*}`, and dots. */
  path: string;
  /** What is the body: `*` is all that isn't in the path, else the name of a field. Without it all of that is in the query. */
  body?: string;
  /** What the body is if that field isn't set. */
  empty?: unknown;
  /** Paths of fields that are maps: in a query an entry is `name[key]`, and a field of a message `name.field`. */
  maps?: readonly string[];
  /** Members that the request has, whatever the caller says. */
  set?: object;
}

/**
 * The path with its query, and the body, that a request travels in.
 *
 * @throws TypeError if a part of the path isn't there, or something has no place in a query
 */
export function placed(rule: Rule, request: object): { path: string; body?: string } {
  const all: Record<string, unknown> = { ...request, ...rule.set };
  const elsewhere: string[] = [];
  const path = rule.path.replaceAll(/\{([^}=]+)(?:=([^}]*))?\}/g, (_, field: string, pattern?: string) => {
    elsewhere.push(field);
    return pathValue(all, field, pattern);
  });
  if (rule.body === '*') {
    const rest = Object.entries(all).filter(([field]) => !elsewhere.includes(field));
    return { path, body: JSON.stringify(Object.fromEntries(rest), replacer) };
  }
  if (rule.body === undefined) return { path: path + query(all, elsewhere, rule.maps) };
  const body = JSON.stringify(all[rule.body] ?? rule.empty ?? null, replacer);
  return { path: path + query(all, [...elsewhere, rule.body], rule.maps), body };
}

/** For JSON.stringify: bytes are base64. */
function replacer(_: string, value: unknown): unknown {
  return value instanceof Uint8Array ? b64Encode(value) : value;
}

/** Bytes as base64. */
export function b64Encode(bytes: Uint8Array): string {
  let text = '';
  // More arguments than that don't fit on every stack.
  for (let at = 0; at < bytes.length; at += 8_192) text += String.fromCharCode(...bytes.subarray(at, at + 8_192));
  return btoa(text);
}

/** The bytes of base64, such as an answer's. */
export function b64Decode(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * The part of a path that a field is.
 *
 * @param field its name; of a nested one all names, with dots
 * @param pattern what it looks like: `shelves/*`, where slashes are kept
 * @throws TypeError if it isn't there, or would lead to another path
 */
export function pathValue(request: object, field: string, pattern = '*'): string {
  let value: unknown = request;
  for (const name of field.split('.')) value = (value as Record<string, unknown> | null | undefined)?.[name];
  const text = value === undefined || value === null ? '' : String(value as string | number | boolean);
  const segments = pattern === '*' ? [text] : text.split('/');
  // Browsers and Node take dots for the way back, encoded or not.
  if (segments.some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw new TypeError(`${field} is part of the path, and can't be ${JSON.stringify(value)}`);
  }
  return segments.map(encodeURIComponent).join('/');
}

/**
 * The query that a request travels in, with its question mark; empty if there is nothing to say.
 *
 * @param elsewhere fields that travel in the path or in the body
 * @param maps paths of fields that are maps: an entry is `name[key]`, and a field of a message `name.field`
 * @throws TypeError if a field has no place in a query: a list of messages
 */
export function query(request: object, elsewhere: readonly string[], maps: readonly string[] = []): string {
  const said = new URLSearchParams();
  const add = (name: string, value: unknown) => {
    if (value === undefined || value === null || elsewhere.includes(name)) return;
    if (value instanceof Uint8Array) said.append(name, b64Encode(value));
    else if (Array.isArray(value)) {
      for (const item of value) {
        if (typeof item === 'object') throw new TypeError(`${name} has no place in a query`);
        said.append(name, String(item));
      }
    } else if (typeof value === 'object') {
      const isMap = maps.includes(name);
      for (const [key, inner] of Object.entries(value)) add(isMap ? `${name}[${key}]` : `${name}.${key}`, inner);
    } else said.append(name, String(value as string | number | boolean));
  };
  for (const [name, value] of Object.entries(request)) add(name, value);
  return said.size === 0 ? '' : `?${said}`;
}
