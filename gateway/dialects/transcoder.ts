import type { IncomingHttpHeaders } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import { holderOf, writeDraft, type Draft } from '../json/draft.ts';
import type { Reading } from '../json/reading.ts';
import { RequestJson, type JsonReader } from '../json/request-json.ts';
import { ResponseJson, type JsonForm } from '../json/response-json.ts';
import type { Json } from '../json/scalars.ts';
import { Fault, type Field } from '../json/schema.ts';
import type { Binding } from '../rules/bindings.ts';

/** What a request has that may be fields of its message. */
export interface RequestParts {
  /** The values of the template's variables. */
  values: readonly string[];
  /** The query string. */
  query: string;
  /** The JSON of the body; undefined if there was none. */
  json?: { value: unknown } | undefined;
  headers?: IncomingHttpHeaders;
}

/** Translates HTTP requests into the messages of RPCs, and their answers into JSON. */
export abstract class Transcoder {
  protected readonly requests: RequestJson;
  protected readonly responses: ResponseJson;

  constructor(registry: Registry, reader: JsonReader, form: JsonForm) {
    this.requests = new RequestJson(registry, reader);
    this.responses = new ResponseJson(registry, form);
  }

  /** Makes the request message. What is wrong with it is noted in `reading`; the message then holds the rest. */
  abstract request(binding: Binding, parts: RequestParts, reading: Reading): Uint8Array;

  /** Reads one message of a stream of JSON. */
  streamed(binding: Binding, json: unknown, reading: Reading): Uint8Array {
    const draft: Draft = new Map();
    return joined(this.requests.whole(binding.input, json, draft, reading), draft);
  }

  /** The JSON of a response message. */
  response(binding: Binding, bytes: Uint8Array): string {
    if (binding.responseBody === undefined) return JSON.stringify(this.responses.message(binding.output, bytes));
    return this.responseBody(binding, binding.responseBody, bytes);
  }

  /** The JSON of the field that is answered in place of the whole message. */
  protected abstract responseBody(binding: Binding, field: Field, bytes: Uint8Array): string;

  /** The fields of a response message by their names, each as its JSON. */
  fields(binding: Binding, bytes: Uint8Array): Record<string, Json> {
    return this.responses.message(binding.output, bytes) as Record<string, Json>;
  }
}

/** The bytes of a message of which a part is encoded already. That part comes first. */
export function joined(encoded: Uint8Array | undefined, draft: Draft): Uint8Array {
  return encoded === undefined ? writeDraft(draft) : Buffer.concat([encoded, writeDraft(draft)]);
}

/** Sets a field to the value of a path's variable, whatever has set it before: the path has the last word. */
export function bindVariable(fields: readonly Field[], value: unknown, draft: Draft, reading: Reading): void {
  const field = fields.at(-1) as Field;
  const path = fields.map((own) => own.name).join('.');
  reading.forget(path);
  if (value instanceof Fault) {
    reading.fail({ field: path, sent: path }, value.description, value.rule);
    return;
  }
  const holder = holderOf(fields, draft);
  for (const sibling of field.siblings ?? []) holder.delete(sibling);
  holder.set(field, value);
}
