import { ScalarType } from '@bufbuild/protobuf';
import { holderOf, zero, type Draft } from '../../json/draft.ts';
import type { Place, Reading } from '../../json/reading.ts';
import { Fault, fieldsAt, type Field } from '../../json/schema.ts';
import { fitsText, maxDepth } from '../../json/well-known.ts';
import { isOutsideQuery, type Binding } from '../../rules/bindings.ts';
import { valueFromText } from './text.ts';

/** Reads a query string: every field that isn't in the path, the body or a header, however deep, may be in it. */
export class QueryReader {
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
    if (fields === undefined || field === undefined || isOutsideQuery(this.#binding, fields)) return;
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

function decodeQuery(text: string): string | undefined {
  if (!text.includes('%') && !text.includes('+')) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}
