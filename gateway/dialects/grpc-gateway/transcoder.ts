import { ScalarType, type Registry } from '@bufbuild/protobuf';
import { holderOf, zero, type Draft } from '../../json/draft.ts';
import { nameless, root, type Reading } from '../../json/reading.ts';
import { hasNull } from '../../json/request-json.ts';
import { ResponseJson, type JsonForm } from '../../json/response-json.ts';
import { zeroJson, type Json } from '../../json/scalars.ts';
import { Fault, type Field } from '../../json/schema.ts';
import { fieldMaskOf, maxMaskLength, maxDepth } from '../../json/well-known.ts';
import type { Binding } from '../../rules/bindings.ts';
import { bindVariable, joined, Transcoder, type RequestParts } from '../transcoder.ts';
import { grpcGatewayJsonReader } from './json.ts';
import { readQuery } from './query.ts';
import { valueFromText, wellKnownFromJson } from './text.ts';

/** Transcodes as grpc-gateway's runtime does. */
export class GrpcGatewayTranscoder extends Transcoder {
  /** For a field that is the answer: as Go prints what is no message. */
  readonly #plain: ResponseJson;

  constructor(registry: Registry, form: JsonForm) {
    super(registry, grpcGatewayJsonReader, form);
    this.#plain = new ResponseJson(registry, { ...form, longs: 'number' });
  }

  override request(binding: Binding, { values, query, json }: RequestParts, reading: Reading): Uint8Array {
    const draft: Draft = new Map();
    const { body, bodyPath } = binding;
    let whole: Uint8Array | undefined;
    const bindAll = () => {
      for (const [index, fields] of binding.variables.entries()) {
        bindVariable(fields, readVariable(fields, values[index] as string), draft, reading);
      }
    };
    if (body === 'all') {
      if (json !== undefined) whole = this.requests.whole(binding.input, json.value, draft, reading);
    } else if (body !== 'none') {
      const holder = holderOf(bodyPath, draft);
      if (json !== undefined) this.#body(body, json.value, holder, reading);
      // A message is there even without a body, and so is a member of a oneof.
      const isThere = body.value.kind === 'message' || body.siblings !== undefined;
      if (body.shape === 'single' && isThere && !holder.has(body) && (json?.value ?? null) === null) {
        holder.set(body, zero(body.value));
      }
      fillMask(binding, json?.value, draft, reading);
    }
    if (query !== '' && body !== 'all') {
      bindAll();
      readQuery(binding, query, draft, reading);
    }
    bindAll();
    return joined(whole, draft);
  }

  /** Reads the body that is a field: what isn't a message is read more strictly there than within one. */
  #body(field: Field, json: Json, draft: Draft, reading: Reading): void {
    const fail = (description: string) => reading.fail({ field: field.name, sent: field.name }, description);
    if (json === null && !hasNull(field)) {
      if (field.shape === 'single' && field.value.kind !== 'scalar') fail('must not be null');
      return;
    }
    const isPlain = (value: Json) => {
      const { value: type } = field;
      if (type.kind === 'message') return value !== null || hasNull(field);
      if (value === null) return type.kind !== 'enum';
      if (type.kind === 'enum') return typeof value === 'number';
      const isText = type.scalar === ScalarType.STRING || type.scalar === ScalarType.BYTES;
      return isText || type.scalar === ScalarType.BOOL || typeof value !== 'string';
    };
    const values = field.shape === 'single' ? [json] : typeof json === 'object' ? Object.values(json as object) : [];
    if (!values.every(isPlain)) fail('must not be given as text, or as null');
    else
      this.requests.field(
        field,
        field.shape === 'single' ? json : withZeros(field, json),
        draft,
        reading,
        root,
        nameless,
      );
  }

  protected override responseBody({ output }: Binding, field: Field, bytes: Uint8Array): string {
    const { shape, value } = field;
    const responses = value.kind === 'message' ? this.responses : this.#plain;
    const shown = responses.field(output, field, bytes);
    if (shape !== 'single') return JSON.stringify(shown ?? null);
    if (value.kind === 'message' && value.message.typeName !== 'google.protobuf.Value') {
      return JSON.stringify(shown ?? this.responses.message(value.message, new Uint8Array()));
    }
    if (value.kind === 'enum' && typeof shown === 'number') return JSON.stringify(String(shown));
    // Go prints an empty slice of bytes as a list.
    const isEmpty = value.kind === 'scalar' && value.scalar === ScalarType.BYTES && shown === '';
    return isEmpty ? '[]' : JSON.stringify(shown ?? null);
  }
}

/** A list or map of scalars with zeros where there is null. */
function withZeros({ value: type }: Field, json: Json): Json {
  if (type.kind === 'message' || typeof json !== 'object' || json === null) return json;
  const blank = type.kind === 'enum' ? 0 : zeroJson(type.scalar);
  if (Array.isArray(json)) return json.map((item: Json) => item ?? blank);
  return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, item ?? blank]));
}

/**
 * A variable as grpc-gateway reads it: times at the top of a message as in JSON, those further down as in a query; and a list at
 * the top as items with commas between them, one further down as one item.
 */
function readVariable(fields: readonly Field[], text: string): unknown {
  const { value: type, shape } = fields.at(-1) as Field;
  if (shape === 'list') {
    const items = (fields.length === 1 ? text.split(',') : [text]).map((item) => valueFromText(type, item));
    return items.find((item) => item instanceof Fault) ?? items;
  }
  const isTop = fields.length === 1 && type.kind === 'message';
  return (isTop ? wellKnownFromJson(type.message.typeName, unquoted(text)) : undefined) ?? valueFromText(type, text);
}

function unquoted(text: string): string {
  let [from, to] = [0, text.length];
  while (from < to && text[from] === '"') from += 1;
  while (to > from && text[to - 1] === '"') to -= 1;
  return text.slice(from, to);
}

/** Fills the only field mask of a message with what the body of a PATCH names, as grpc-gateway does. */
function fillMask({ body, updateMask }: Binding, json: unknown, draft: Draft, reading: Reading): void {
  if (updateMask === undefined || typeof body !== 'object') return;
  const paths: string[] = [];
  let size = 0;
  const unknown = pathsIn(body, json, '', 0, (path) => {
    size += path.length;
    if (size <= maxMaskLength) paths.push(path);
  });
  if (unknown !== undefined) reading.fail({ field: body.name, sent: unknown }, 'is no field', 'unknown');
  else if (size > maxMaskLength)
    reading.fail({ field: body.name, sent: body.name }, 'names more fields than a mask can');
  else draft.set(updateMask, fieldMaskOf(paths.sort()));
}

/** Tells the paths of all fields that JSON names. @returns the name of one that there isn't */
function pathsIn(
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
    const unknown = pathsIn(named, value, path === '' ? named.name : `${path}.${named.name}`, depth + 1, tell);
    if (unknown !== undefined) return unknown;
  }
  return undefined;
}
