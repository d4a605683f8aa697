import type { IncomingHttpHeaders } from 'node:http';
import { ScalarType, type Registry } from '@bufbuild/protobuf';
import type { Binding } from '../rules/bindings.ts';
import type { JsonForm } from './dialect.ts';
import { nameless, root, type Place, type Reading } from '../json/reading.ts';
import {
  fitsText,
  holderOf,
  isPlainMessage,
  RequestJson,
  valueFromText,
  writeDraft,
  zero,
  type Draft,
} from '../json/request-json.ts';
import { ResponseJson } from '../json/response-json.ts';
import type { Json } from '../json/scalars.ts';
import { Fault, fieldsAt, type Field } from '../json/schema.ts';
import { readStrictQuery } from './grpc-gateway/query.ts';
import { paths as fieldMask, strictFromText, strictWellKnown } from './grpc-gateway/text.ts';
import { longestMask, maxDepth } from '../json/well-known.ts';

/** Where the fields of a request are. */
export interface Sent {
  /** The values of the template's variables. */
  values: readonly string[];
  /** The query string. */
  query: string;
  /** The JSON of the body; undefined if there was none. */
  json?: { value: unknown } | undefined;
  /** The headers, where some of them are fields. */
  headers?: IncomingHttpHeaders;
}

/** Translates HTTP requests into the messages of RPCs, and their answers into JSON. */
export class Transcoder {
  readonly #requests: RequestJson;
  readonly #responses: ResponseJson;
  /** For a field that is the answer: as Go prints what is no message. */
  readonly #plain: ResponseJson;
  readonly #strict: boolean;

  constructor(registry: Registry, form: JsonForm) {
    this.#strict = form.strict;
    this.#requests = new RequestJson(registry, form.strict);
    this.#responses = new ResponseJson(registry, form);
    this.#plain = new ResponseJson(registry, { ...form, longs: 'number' });
  }

  /** Makes the request message. What is wrong with it is noted in `reading`; the message then holds the rest. */
  request(binding: Binding, { values, query, json, headers = {} }: Sent, reading: Reading): Uint8Array {
    const draft: Draft = new Map();
    const { body, bodyPath } = binding;
    let whole: Uint8Array | undefined;
    const bindAll = () => {
      for (const [index, fields] of binding.variables.entries()) {
        bindVariable(fields, values[index] as string, draft, reading, this.#strict);
      }
    };
    if (json !== undefined && body !== 'none') {
      if (body === 'all') whole = this.#requests.whole(binding.input, json.value, draft, reading);
      else if (this.#strict) this.#requests.strictBody(body, json.value, holderOf(bodyPath, draft), reading);
      else if (json.value !== null) this.#requests.field(body, json.value, draft, reading, root, nameless);
    }
    if (this.#strict && typeof body === 'object') {
      // A message is there even without a body, and so is a member of a oneof.
      const isThere = body.value.kind === 'message' || body.siblings !== undefined;
      const holder = holderOf(bodyPath, draft);
      if (body.shape === 'single' && isThere && !holder.has(body) && (json?.value ?? null) === null) {
        holder.set(body, zero(body.value));
      }
      strictMask(binding, json?.value, draft, reading);
    }
    if (query !== '' && body !== 'all') {
      if (this.#strict) bindAll();
      if (this.#strict) readStrictQuery(binding, query, draft, reading);
      else new QueryReader(binding, draft, reading).read(query);
    }
    if (json !== undefined && !this.#strict) fillMask(binding, json.value, draft);
    for (const { header, field } of binding.requestHeaders) {
      const text = headers[header];
      const isGiven = binding.rawBody === undefined && draft.has(field);
      if (text !== undefined && !isGiven) {
        setField(field, String(text), { field: field.name, sent: header }, draft, reading);
      }
    }
    bindAll();
    const askedBy = binding.events?.askedBy;
    if (askedBy !== undefined) {
      if (isEvents(headers.accept)) draft.set(askedBy, true);
      reading.asksForEvents = draft.get(askedBy) === true;
    }
    if (reading.knowsAll && json !== undefined) failBound(binding, json.value, reading);
    return withWhole(whole, draft);
  }

  /** Reads one message of a stream of JSON. */
  streamed(binding: Binding, json: unknown, reading: Reading): Uint8Array {
    const draft: Draft = new Map();
    return withWhole(this.#requests.whole(binding.input, json, draft, reading), draft);
  }

  /** The JSON of a response message. */
  response(binding: Binding, bytes: Uint8Array): string {
    const { responseBody, output } = binding;
    if (responseBody === undefined) return JSON.stringify(this.#responses.message(output, bytes));
    const { shape, value } = responseBody;
    const isMessage = value.kind === 'message';
    const responses = isMessage ? this.#responses : this.#plain;
    const shown = responses.field(output, responseBody, bytes);
    if (!this.#strict || shape !== 'single') return JSON.stringify(shown ?? null);
    if (value.kind === 'message' && value.message.typeName !== 'google.protobuf.Value') {
      return JSON.stringify(shown ?? this.#responses.message(value.message, none));
    }
    // An empty slice of bytes is a list, there.
    if (value.kind === 'enum' && typeof shown === 'number') return JSON.stringify(String(shown));
    const isEmpty = value.kind === 'scalar' && value.scalar === ScalarType.BYTES && shown === '';
    return isEmpty ? '[]' : JSON.stringify(shown ?? null);
  }

  /** The fields of a response message by their names, each as its JSON. */
  fields(binding: Binding, bytes: Uint8Array): Record<string, Json> {
    return this.#responses.message(binding.output, bytes) as Record<string, Json>;
  }
}

/** Sets a field of the message itself from a header. */
function setField(field: Field, text: string, place: Place, draft: Draft, reading: Reading): void {
  reading.spell(place);
  const value = valueFromText(field.value, text);
  if (value instanceof Fault) reading.fail(place, value.description, value.rule);
  else draft.set(field, value);
}

/** Whether a client that accepts this wants server-sent events. */
export function isEvents(accept: string | undefined): boolean {
  return accept !== undefined && /\btext\/event-stream\b/i.test(accept);
}

/** Notes which members of the body the path gives already. */
function failBound({ body, variables }: Binding, json: unknown, reading: Reading): void {
  for (const fields of variables) {
    const within = body === 'all' ? fields : fields[0] === body ? fields.slice(1) : [];
    const keys: string[] = [];
    let here = json;
    for (const { name, jsonName } of within) {
      const holder = typeof here === 'object' && here !== null ? (here as Record<string, unknown>) : {};
      const key = [name, jsonName].find((each) => Object.hasOwn(holder, each));
      if (key === undefined) break;
      keys.push(key);
      here = holder[key];
    }
    if (keys.length === 0 || keys.length < within.length) continue;
    const field = fields.map(({ name }) => name).join('.');
    reading.fail({ field, sent: keys.join('.') }, 'is given by the path', 'unknown');
  }
}

function fillMask({ body, updateMask }: Binding, json: unknown, draft: Draft): void {
  if (updateMask === undefined || typeof body !== 'object' || (draft.get(updateMask) as Uint8Array)?.length > 0) return;
  const paths = namesIn(body, json, 0);
  if (paths.length > 0) draft.set(updateMask, valueFromText(updateMask.value, paths.join(',')));
}

/** The paths of all fields that a JSON object names, down to those that are no messages or have nothing in them. */
function namesIn(field: Field, json: unknown, depth: number): string[] {
  if (field.value.kind !== 'message' || depth > maxDepth) return [];
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return [];
  const { byName } = field.value.message;
  return Object.entries(json).flatMap(([key, value]) => {
    const named = byName.get(key);
    if (named === undefined) return [];
    const inner = isPlainMessage(named) ? namesIn(named, value, depth + 1) : [];
    return inner.length === 0 ? [named.name] : inner.map((path) => `${named.name}.${path}`);
  });
}

function bindVariable(fields: readonly Field[], text: string, draft: Draft, reading: Reading, strict: boolean): void {
  const field = fields.at(-1) as Field;
  const path = fields.map((own) => own.name).join('.');
  reading.forget(path);
  const value = strict ? strictVariable(fields, text) : valueFromText(field.value, text);
  if (value instanceof Fault) {
    reading.fail({ field: path, sent: path }, value.description, value.rule);
    return;
  }
  const holder = holderOf(fields, draft);
  for (const sibling of field.siblings ?? []) holder.delete(sibling);
  holder.set(field, value);
}

/**
 * A variable as grpc-gateway reads it: times at the top of a message as in JSON, those further down as in a query; and a list at
 * the top as items with commas between them, one further down as one item.
 */
function strictVariable(fields: readonly Field[], text: string): unknown {
  const { value: type, shape } = fields.at(-1) as Field;
  if (shape === 'list') {
    const items = (fields.length === 1 ? text.split(',') : [text]).map((item) => strictFromText(type, item));
    return items.find((item) => item instanceof Fault) ?? items;
  }
  const isTop = fields.length === 1 && type.kind === 'message';
  return (isTop ? strictWellKnown(type.message.typeName, unquoted(text)) : undefined) ?? strictFromText(type, text);
}

function unquoted(text: string): string {
  let [from, to] = [0, text.length];
  while (from < to && text[from] === '"') from += 1;
  while (to > from && text[to - 1] === '"') to -= 1;
  return text.slice(from, to);
}

const none = new Uint8Array();

/** The bytes of a message of which a part is written already. Those that come later go before. */
function withWhole(whole: Uint8Array | undefined, draft: Draft): Uint8Array {
  return whole === undefined ? writeDraft(draft) : Buffer.concat([whole, writeDraft(draft)]);
}

/** Fills the only field mask of a message with what the body of a PATCH names, as grpc-gateway does. */
function strictMask({ body, updateMask }: Binding, json: unknown, draft: Draft, reading: Reading): void {
  if (updateMask === undefined || typeof body !== 'object') return;
  const paths: string[] = [];
  let size = 0;
  const unknown = strictPaths(body, json, '', 0, (path) => {
    size += path.length;
    if (size <= longestMask) paths.push(path);
  });
  if (unknown !== undefined) reading.fail({ field: body.name, sent: unknown }, 'is no field', 'unknown');
  else if (size > longestMask) reading.fail({ field: body.name, sent: body.name }, 'names more fields than a mask can');
  else draft.set(updateMask, fieldMask(paths.sort()));
}

/** Tells the paths of all fields that JSON names. @returns the name of one that there isn't */
function strictPaths(
  field: Field,
  json: unknown,
  path: string,
  depth: number,
  tell: (path: string) => void,
): string | undefined {
  const entries = typeof json !== 'object' || json === null || Array.isArray(json) ? [] : Object.entries(json);
  const isLeaf = entries.length === 0 || depth > maxDepth || field.shape !== 'single';
  if (isLeaf || field.value.kind !== 'message' || field.value.message.typeName === 'google.protobuf.Any') {
    if (path !== '') tell(path);
    return undefined;
  }
  const { message } = field.value;
  const isDynamic = /^google\.protobuf\.(Struct|Value)$/.test(message.typeName);
  for (const [key, value] of entries) {
    const named = isDynamic ? { ...field, name: key } : message.byName.get(key);
    if (named === undefined) return key;
    const unknown = strictPaths(named, value, path === '' ? named.name : `${path}.${named.name}`, depth + 1, tell);
    if (unknown !== undefined) return unknown;
  }
  return undefined;
}

/** Reads a query string: every field that isn't in the path, the body or a header, however deep, may be in it. */
class QueryReader {
  readonly #binding: Binding;
  readonly #draft: Draft;
  readonly #reading: Reading;
  /** The query's own values by the path of the field in proto names: how it was spelled, and how often it came. */
  readonly #seen = new Map<string, { key: string; count: number }>();

  constructor(binding: Binding, draft: Draft, reading: Reading) {
    this.#binding = binding;
    this.#draft = draft;
    this.#reading = reading;
  }

  read(query: string): void {
    for (const pair of query.split('&')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      const key = decodeQuery(equals === -1 ? pair : pair.slice(0, equals));
      if (key !== undefined) this.#parameter(key, decodeQuery(equals === -1 ? '' : pair.slice(equals + 1)));
    }
  }

  #parameter(key: string, text: string | undefined): void {
    const [, name, entry] = /^([^[]*)(?:\[(.*)\])?$/s.exec(key) ?? [];
    const fields = name === undefined ? undefined : fieldsAt(this.#binding.input, name.split('.'));
    const field = fields?.at(-1);
    if (fields === undefined || field === undefined || isElsewhere(this.#binding, fields)) return;
    if ((entry !== undefined) !== (field.shape === 'map')) return;
    const path = fields.map((own) => own.name).join('.');
    const known = this.#seen.get(path) ?? { key, count: 0 };
    this.#seen.set(path, { key, count: known.count + 1 });
    let place: Place = { field: path, sent: key };
    if (fields.length > maxDepth) {
      this.#reading.fail(place, 'must not be nested so deeply', 'depth');
      return;
    }
    if (field.shape === 'list') place = { field: `${path}[${known.count}]`, sent: key };
    if (field.shape === 'map') {
      place = { field: `${path}[${field.key === ScalarType.STRING ? JSON.stringify(entry) : entry}]`, sent: key };
    }
    this.#reading.spell(place);
    // A rule about the list as a whole is told under its name, too.
    if (field.shape !== 'single') this.#reading.spell({ field: path, sent: name as string });
    if (field.shape === 'single' && known.count > 0) {
      if (known.count === 1) this.#reading.fail(place, 'must be given once', 'once');
      return;
    }
    this.#set(fields, field, entry, text, place);
  }

  #set(
    fields: readonly Field[],
    field: Field,
    entry: string | undefined,
    text: string | undefined,
    place: Place,
  ): void {
    const value =
      text === undefined
        ? new Fault('must be percent-encoded UTF-8', 'encoding')
        : fitsText(field.value)
          ? valueFromText(field.value, text)
          : new Fault('must be given by its fields, each a parameter of its own');
    const rival = this.#rival(fields);
    const conflict =
      rival === undefined ? undefined : new Fault(`must not be given together with ${rival}`, 'conflict');
    const fault = value instanceof Fault ? value : conflict;
    if (fault !== undefined) this.#reading.fail(place, fault.description, fault.rule);
    if (fault !== undefined && field.shape !== 'list') return;
    const holder = holderOf(fields, this.#draft);
    if (field.shape === 'single') {
      holder.set(field, value);
    } else if (field.shape === 'list') {
      const items = (holder.get(field) ?? []) as unknown[];
      // A wrong item leaves a zero behind, so that the others keep their places.
      items.push(fault === undefined ? value : zero(field.value));
      holder.set(field, items);
    } else {
      const key = valueFromText({ kind: 'scalar', scalar: field.key }, entry as string);
      if (key instanceof Fault) {
        this.#reading.fail(place, `must have a key that fits: it ${key.description}`, key.rule);
        return;
      }
      const entries = (holder.get(field) ?? new Map()) as Map<unknown, unknown>;
      entries.set(key, value);
      holder.set(field, entries);
    }
  }

  /** The other member of a oneof that is already set, on the way down. */
  #rival(fields: readonly Field[]): string | undefined {
    let here: Draft | undefined = this.#draft;
    for (const field of fields) {
      const rival = field.siblings?.find((sibling) => here?.has(sibling));
      if (rival !== undefined) return rival.name;
      here = here?.get(field) as Draft | undefined;
      if (!(here instanceof Map)) return undefined;
    }
    return undefined;
  }
}

/** Whether a field is given by the path, the body or a header, and so not by the query. */
export function isElsewhere({ body, variables, rawBody, requestHeaders }: Binding, fields: readonly Field[]): boolean {
  if (fields[0] === body) return true;
  if (rawBody !== undefined && requestHeaders.some(({ field }) => field === fields[0])) return true;
  return variables.some((bound) => bound.length === fields.length && bound.every((field, at) => field === fields[at]));
}

function decodeQuery(text: string): string | undefined {
  if (!text.includes('%') && !text.includes('+')) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}
