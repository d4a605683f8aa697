import type { IncomingMessage, ServerResponse } from 'node:http';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { Status } from '#gen/google/rpc/status.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import { answerBody, answerNothing } from '../http/send-answer.ts';
import type { Events } from '../rules/stream-bindings.ts';
import { Outgoing } from './call.ts';
import { requestIdIn } from '../http/request-details.ts';
import type { Problem } from '../http/problem.ts';
import { answerLookup, isLookup } from '../http/conditional-get.ts';
import { acceptsEvents } from '../http/media-type.ts';
import { readMessage } from './request-message.ts';
import type { Field } from '../json/schema.ts';
import type { Json } from '../json/scalars.ts';
import { passOn, type Sink } from './server-stream.ts';
import type { StreamOptions } from './stream.ts';

/** An event, or nothing at all, in a message. */
interface Event {
  type: string;
  id: Json;
  /** What it tells; in its place the error that the call ends with. */
  value: Json;
  problem?: Problem;
}

/** So many messages are remembered, each of so many bytes at most. */
const remembered = { messages: 1_000, bytes: 4_096 };

/** The texts of the messages that came last, by their bytes: of thousands of streams many are told the same. */
export class SharedTexts {
  readonly #texts = new BoundedMap<string, string>(remembered.messages);

  of(encoded: Buffer, make: () => string): string {
    if (encoded.length > remembered.bytes) return make();
    const key = encoded.toString('latin1');
    let text = this.#texts.get(key);
    if (text === undefined) this.#texts.set(key, (text = make()));
    return text;
  }
}

/** What the streams of an RPC share. */
export interface SharedForms {
  events: SharedTexts;
  lines: SharedTexts;
}

/**
 * Answers a request with the messages of an RPC as server-sent events (`events` of chat4all.options.v1), or, where the client asks for
 * none, with the value of the last one, or with all messages as lines of JSON.
 *
 * @throws Problem before anything was answered
 */
export async function answerEvents(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: StreamOptions & { events: Events; shared: SharedForms | undefined },
): Promise<void> {
  const { binding, dialect, events, enter, form, heartbeat, shared } = options;
  const outgoing = new Outgoing(request, response, options);
  const message = await readMessage(request, response, values, query, options, outgoing);
  await enter(request, response);
  if (response.destroyed) return;

  /** What a message says; undefined if it has no event, or one that we don't know. */
  const read = (encoded: Buffer): Event | undefined => {
    const found = memberIn(encoded, events);
    if (found === undefined) return undefined;
    const { field, value } = found;
    const json = dialect.transcoder.fields(binding, encoded);
    const about = { type: field.name, id: json[events.id.name] };
    if (isStatus(field)) return { ...about, value: null, problem: outgoing.refusal(errorOf(value)) };
    return { ...about, value: events.hasWholeMessages ? (json as Json) : json[field.name]! };
  };

  await passOn(request, response, options, outgoing, message, (passage) => {
    if (events.askedBy !== undefined && !outgoing.asksForEvents) {
      let last: Buffer | undefined;
      return {
        message: (encoded) => (last = encoded),
        end() {
          const event = last === undefined ? undefined : read(last);
          const headers = passage.headers();
          if (event === undefined) return answerNothing(response, headers);
          if (event.problem !== undefined) return passage.fail(event.problem);
          const json = JSON.stringify(event.value);
          headers['Content-Type'] = 'application/json';
          if (binding.successStatus === 200 && isLookup(response)) return answerLookup(response, json, headers);
          return answerBody(response, binding.successStatus, json, headers);
        },
      } satisfies Sink;
    }

    const isLines = events.hasWholeMessages && !acceptsEvents(request.headers.accept);
    let hasBegun = false;
    const begin = () => {
      if (hasBegun) return;
      hasBegun = true;
      passage.begin(200, {
        ...passage.headers(),
        'Content-Type': isLines ? 'application/x-ndjson' : 'text/event-stream',
        // Whoever is between us and the client is neither to keep it nor to compress it, nor to wait for more of it (nginx).
        'Cache-Control': 'no-cache, no-transform',
        'X-Accel-Buffering': 'no',
      });
      if (events.retry > 0 && !isLines) passage.write(`retry: ${events.retry}\n\n`);
    };
    const tell = (problem: Problem) => form.bodyOf(problem, requestIdIn(response));
    if (isLines) {
      return {
        begun: begin,
        message(encoded) {
          begin();
          const line = () => `${dialect.transcoder.response(binding, encoded)}\n`;
          passage.write(shared === undefined ? line() : shared.lines.of(encoded, line));
        },
        end: begin,
        broken: (problem) => passage.write(`{"error":${tell(problem)}}\n`),
      } satisfies Sink;
    }
    // After a silence: a stream that says something by itself is known to be alive.
    const beat = setInterval(() => {
      begin();
      passage.write(': \n\n');
    }, heartbeat);
    const textOf = (encoded: Buffer): string => {
      const event = read(encoded);
      if (event === undefined) return '';
      const { type, id, value, problem } = event;
      const data = problem === undefined ? JSON.stringify(value) : tell(problem);
      // An empty id would have the client forget the one before.
      const named = id === '' || id === undefined ? '' : `id: ${oneLine(id)}\n`;
      return `event: ${type}\n${named}data: ${data}\n\n`;
    };
    return {
      begun: begin,
      message(encoded) {
        const text = shared === undefined ? textOf(encoded) : shared.events.of(encoded, () => textOf(encoded));
        if (text !== '') beat.refresh();
        begin();
        passage.write(text);
      },
      end() {
        if (!hasBegun) answerNothing(response, passage.headers());
      },
      broken: (problem) => passage.write(`event: error\ndata: ${tell(problem)}\n\n`),
      stop: () => clearInterval(beat),
    };
  });
}

/** An id as a field of an event: a line break would end it, and NUL makes clients disregard it (WHATWG HTML, 9.2.6). */
function oneLine(id: Json): string {
  return String(id).replace(/[\r\n\0]/g, '');
}

/** The member of the oneof that a message has set, with its bytes: of several the last one counts. */
function memberIn(encoded: Uint8Array, { members }: Events): { field: Field; value: Uint8Array } | undefined {
  const reader = new BinaryReader(encoded);
  let found: { field: Field; value: Uint8Array } | undefined;
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    const field = members.get(number);
    if (field !== undefined && wire === WireType.LengthDelimited) found = { field, value: reader.bytes() };
    else reader.skip(wire, number);
  }
  return found;
}

/** Whether a member of the event is the error that the call ends with. */
export function isStatus({ value }: Field): boolean {
  return value.kind === 'message' && value.message.typeName === 'google.rpc.Status';
}

/** An error as if the call had ended with it. */
function errorOf(encoded: Uint8Array): ServiceError {
  const { code, message } = Status.decode(encoded);
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(encoded));
  return Object.assign(new Error(message), { code, details: message, metadata });
}
