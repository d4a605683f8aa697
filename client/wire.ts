/** The JSON types of messages, and how requests are mapped to HTTP. */

/** A message in a response: all fields are present, also those that are optional in requests. */
export type Answered<T> = T extends readonly (infer Item)[]
  ? Answered<Item>[]
  : T extends Uint8Array
    ? never
    : T extends object
      ? { [Name in keyof T]-?: Answered<Exclude<T[Name], undefined>> }
      : T;

/** A page of a list. `pagination` is not part of its JSON. */
export type Page<List, Pagination> = List & { readonly pagination: Pagination };

/** At most one of the members. */
export type OneOf<T> =
  | { [Name in keyof T]?: never }
  | { [Name in keyof T]: Pick<T, Name> & { [Other in Exclude<keyof T, Name>]?: never } }[keyof T];

/** A google.protobuf.Any: the fields of the message, or `value` if its JSON is not an object. */
export type Any = { '@type': string; [field: string]: unknown };

/** An event of a stream: a union over the types of events. */
export type EventOf<Id, Data> = { [Type in keyof Data]: { type: Type; id: Id; data: Data[Type] } }[keyof Data];

/** How the request of an RPC is mapped to HTTP: its google.api.http rule. */
export interface Rule {
  /** The HTTP method. */
  verb: string;
  /** A template, such as `/v1/conversations/{conversation_id}/messages`. A variable may have a pattern, `{name=shelves/*}`, and dots. */
  path: string;
  /** What the body holds: `*` for all that isn't in the path, or the name of a field. What is in neither goes to the query. */
  body?: string;
  /** The body if that field isn't set. */
  empty?: unknown;
  /** The paths of map fields: their entries are `name[key]` in the query, while a field of a message is `name.field`. */
  maps?: readonly string[];
  /** Fields of the request that the method sets. */
  set?: object;
}

/**
 * Maps a request to HTTP.
 *
 * @returns the path with its query, and the body
 * @throws TypeError if a field of the path is missing, or a field can't be in a query
 */
export function toHttp(rule: Rule, request: object): { path: string; body?: string } {
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
