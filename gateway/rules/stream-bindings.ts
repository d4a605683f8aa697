import { ScalarType, type DescField, type DescMethod, type Message } from '@bufbuild/protobuf';
import type { HttpRule } from './api-configuration.ts';
import type { RouteError } from './path-template.ts';
import { messageType, type Field, type MessageType } from '../json/schema.ts';
import { fitsText } from '../json/well-known.ts';

/** A field that travels as an HTTP header. */
export interface HeaderField {
  /** In lower case. */
  header: string;
  field: Field;
}

/** How an HTTP body is mapped to the stream of an RPC. */
export interface RawBody {
  /** The field for pieces of the body. */
  bytes: DescField;
  /** Fields of the first response message that become response headers. */
  responseHeaders: readonly HeaderField[];
}

/** How the messages of a stream become server-sent events. */
export interface Events {
  /** The members of the oneof that holds the event, by number. */
  members: ReadonlyMap<number, Field>;
  id: Field;
  /** The bool that asks for events; undefined if they are always sent. */
  askedBy: Field | undefined;
  /** The members that a stream may end with, beside an error. */
  last: readonly Field[];
  /** Whether the data of an event is the whole message, and a client that asks for no events gets messages as lines of JSON. */
  hasWholeMessages: boolean;
  /** The reconnection time for clients, in milliseconds; 0 for none. */
  retry: number;
}

/** Which header is which field. */
export type HeaderOptions = readonly { header: string; field: string }[];

/** chat4all.options.v1.RawBody, shown like that. */
interface RawBodyOption extends Message {
  requestHeaders: HeaderOptions;
  responseHeaders: HeaderOptions;
}

/** chat4all.options.v1.Events, shown like that. */
interface EventsOption extends Message {
  event: string;
  id: string;
  askedBy: string;
  lastEventId: string;
  retry: number;
  last: readonly string[];
  data: number;
}

/** The options of a method that name fields of its messages. */
export interface FieldOptions {
  raw: RawBodyOption | undefined;
  events: EventsOption | undefined;
  requestHeaders: HeaderOptions;
}

/** @throws what `fail` makes of it, if the option does not fit the method */
export function readRawBody(
  method: DescMethod,
  rule: HttpRule,
  raw: RawBodyOption,
  fail: (what: string) => RouteError,
): RawBody {
  const { methodKind, input, output } = method;
  const [message, name] = methodKind === 'client_streaming' ? [input, rule.body] : [output, rule.responseBody];
  const bytes = message.fields.find((field) => field.name === name);
  if (methodKind !== 'client_streaming' && methodKind !== 'server_streaming') {
    throw fail('has a raw body, for which it must be a stream in one direction');
  }
  if (bytes?.fieldKind !== 'scalar' || bytes.scalar !== ScalarType.BYTES) {
    throw fail(`has a raw body, but ${name || 'nothing'} as its body, which is no field of bytes`);
  }
  return { bytes, responseHeaders: readHeaders(messageType(output), raw.responseHeaders, fail) };
}

/** The headers of a request that are fields of its message. */
export function headersOf(
  raw: RawBodyOption | undefined,
  events: EventsOption | undefined,
  own: HeaderOptions,
): HeaderOptions {
  if (raw !== undefined) return raw.requestHeaders;
  const last = events?.lastEventId ?? '';
  return last === '' ? own : [...own, { header: 'last-event-id', field: last }];
}

/** @throws what `fail` makes of it, if a field can't travel as a header */
export function readHeaders(
  type: MessageType,
  headers: HeaderOptions,
  fail: (what: string) => RouteError,
): HeaderField[] {
  return headers.map(({ header, field: path }) => {
    const field = type.fields.find((candidate) => candidate.name === path);
    if (field === undefined || !isText(field) || !/^[a-z\d-]+$/.test(header)) {
      throw fail(`has the header ${header} for ${path}, which is no single value of ${type.typeName}`);
    }
    return { header, field };
  });
}

/** @throws what `fail` makes of it, if the option does not fit the method */
export function readEvents(method: DescMethod, option: EventsOption, fail: (what: string) => RouteError): Events {
  const { event, id: idName, askedBy: asked, retry } = option;
  if (method.methodKind !== 'server_streaming') throw fail('has events, for which it must be a stream of them');
  const [input, output] = [messageType(method.input), messageType(method.output)];
  const oneof = method.output.oneofs.find(({ name }) => name === event);
  if (oneof === undefined)
    throw fail(`has ${event || 'nothing'} as its event, which is no oneof of ${output.typeName}`);
  const numbers = new Set(oneof.fields.map(({ number }) => number));
  const members = new Map(output.fields.filter(({ number }) => numbers.has(number)).map((one) => [one.number, one]));
  if ([...members.values()].some(({ value }) => value.kind !== 'message')) {
    throw fail(`has ${event} as its event, of which each member must be a message`);
  }
  const id = output.fields.find(({ name }) => name === idName);
  if (id === undefined || id.shape !== 'single' || id.value.kind !== 'scalar' || !eventIds.has(id.value.scalar)) {
    throw fail(`has ${idName || 'nothing'} as the id of its events, which is neither a string nor an integer`);
  }
  const askedBy = asked === '' ? undefined : input.fields.find(({ name }) => name === asked);
  const isBool =
    askedBy?.shape === 'single' && askedBy.value.kind === 'scalar' && askedBy.value.scalar === ScalarType.BOOL;
  if (asked !== '' && !isBool) throw fail(`asks for events by ${asked}, which is no bool of ${input.typeName}`);
  const all = [...members.values()];
  const last = option.last.map((name) => {
    const field = all.find((candidate) => candidate.name === name);
    if (field === undefined) throw fail(`ends with the event ${name}, which is no member of ${event}`);
    return field;
  });
  const hasWholeMessages = option.data === wholeMessage;
  return { members, id, askedBy, last: last.length === 0 ? all : last, hasWholeMessages, retry };
}

/** EVENT_DATA_MESSAGE of chat4all.options.v1. */
const wholeMessage = 1;

/** The types that the id of an event may have. */
const eventIds = new Set([
  ScalarType.STRING,
  ScalarType.INT32,
  ScalarType.INT64,
  ScalarType.UINT32,
  ScalarType.UINT64,
  ScalarType.SINT32,
  ScalarType.SINT64,
  ScalarType.FIXED32,
  ScalarType.FIXED64,
  ScalarType.SFIXED32,
  ScalarType.SFIXED64,
]);

/** Whether a field is a single value that may be given as text. */
export function isText(field: Field | undefined): boolean {
  return field?.shape === 'single' && fitsText(field.value);
}
