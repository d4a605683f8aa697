import { type Binding } from '../rules/bindings.ts';
import type { Events } from '../rules/stream-bindings.ts';
import { partName } from '../calls/body-pieces.ts';
import type { Endpoint } from '../rules/endpoints.ts';
import { paginationType } from '../calls/envelope.ts';
import { commentOf, titled } from './comments.ts';
import { successSchema } from './envelopes.ts';
import { fieldOf, headerName, parametersOf, writtenPath } from './parameters.ts';
import { preconditionFailed, type BodyKind, type KnownErrors, type KnownProblem } from './problems.ts';
import { problemResponses } from './responses.ts';
import type { Schema } from './rules.ts';
import type { Schemas } from './schemas.ts';

/** An Operation Object of OpenAPI, with the place where it belongs. */
export interface Operation {
  /** As OpenAPI writes it, every variable in braces: `/v1/files/{file_id}`. */
  path: string;
  /** In lower case. */
  method: string;
  body: Schema;
}

/** The media type of any bytes. */
const bytes = 'application/octet-stream';

const headers = { 'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' } };
/** The headers of an answer with an entity tag. */
export const versioned = {
  ...headers,
  ETag: { description: 'The entity tag of this version.', schema: { type: 'string' } },
};
/** The response for a client that has the current version. */
export const unchanged: Schema = {
  304: { description: 'The client has it already: If-None-Match names its entity tag.', headers: versioned },
};
/** Describes the endpoints for RPCs. */
export class Operations {
  readonly #schemas: Schemas;
  readonly #errors: KnownErrors;
  readonly #ids = new Map<string, number>();

  constructor(schemas: Schemas, errors: KnownErrors) {
    this.#schemas = schemas;
    this.#errors = errors;
  }

  /** The operation of an endpoint. An upload's also describes the RPC for JSON bodies at the same path. */
  of({ route, json, lookup }: Endpoint): Operation {
    const { target: binding } = route;
    const both = json === undefined ? [binding] : [binding, json.target];
    const { path, wildcards } = writtenPath(binding.template);
    const isLookup = route.method === 'GET' && binding.successStatus === 200 && hasVersions(binding);
    const isConditional = isLookup || lookup !== undefined || hasEntityTag(binding);
    const access = this.#errors.accessOf(binding);
    const security = this.#errors.securityOf(binding);
    const bodies = both.map(bodyKindOf);
    const problems = both.flatMap((each) => this.#errors.problemsOf(each, [bodyKindOf(each)]));
    if (isConditional) problems.push(preconditionFailed);
    const content = Object.assign({}, ...both.map((each) => this.#requestContent(each))) as Schema;
    return {
      path,
      method: route.method.toLowerCase(),
      body: {
        operationId: this.#idOf(binding),
        tags: [tagOf(binding)],
        ...this.#texts(both, access === adminAccess),
        ...(security !== undefined && { security }),
        parameters: parametersOf(this.#schemas, both, wildcards, isConditional),
        ...(bodies.some((kind) => kind !== 'none') && {
          requestBody: { required: both.some((each) => this.#needsBody(each)), content },
        }),
        responses: {
          ...this.#successes(both, isLookup),
          ...this.#problems(binding, problems),
        },
      },
    };
  }

  #texts([binding, json]: readonly Binding[], isForAdmins: boolean): Schema {
    const { title, rest } = titled(commentOf(binding!.method));
    const texts = [isForAdmins ? 'For administrators.' : '', rest];
    if (json !== undefined) texts.push(`With a body of JSON: ${commentOf(json.method)}`);
    const description = texts.filter((text) => text !== '').join('\n\n');
    return { summary: title || binding!.method.name, ...(description !== '' && { description }) };
  }

  /** A unique id for each HTTP rule of an RPC. */
  #idOf({ operationId: name }: Binding): string {
    const count = (this.#ids.get(name) ?? 0) + 1;
    this.#ids.set(name, count);
    return count === 1 ? name : `${name}${count}`;
  }

  #requestContent(binding: Binding): Schema {
    const { body, rawBody, method } = binding;
    if (bodyKindOf(binding) === 'none') return {};
    // The protocol defines the body.
    if (binding.isWholeHttp) return jsonContent({}, undefined);
    if (rawBody !== undefined) {
      const example = this.#schemas.exampleOf(rawBody.bytes);
      const whole = { type: 'string', format: 'binary' };
      return {
        [bytes]: { schema: whole, ...(example !== undefined && { example }) },
        'multipart/form-data': {
          schema: { type: 'object', properties: { [partName]: whole }, required: [partName] },
        },
      };
    }
    const { input } = method;
    if (typeof body === 'object') {
      const field = fieldOf(input.fields, body.name);
      const example =
        this.#schemas.exampleOf(field) ?? (field.message && this.#schemas.exampleOfMessage(field.message));
      if (isBody(field.message?.typeName)) return anyBytes;
      return jsonContent(this.#schemas.field(field, 'request'), example);
    }
    if (isBody(input.typeName)) return anyBytes;
    const left = boundNames(binding);
    const { knownFieldsOnly } = binding;
    const schema =
      left.size === 0 && !knownFieldsOnly
        ? this.#schemas.message(input, 'request')
        : this.#schemas.object(input, 'request', left);
    return jsonContent(
      { ...schema, ...(knownFieldsOnly && { additionalProperties: false }) },
      this.#schemas.exampleOfMessage(input, left),
    );
  }

  #needsBody(binding: Binding): boolean {
    const { body, rawBody, method } = binding;
    // A raw body may be empty.
    if (rawBody !== undefined || body === 'none') return false;
    if (binding.isWholeHttp) return true;
    const { fields } = method.input;
    if (body !== 'all') return this.#schemas.isRequired(fieldOf(fields, body.name));
    const left = boundNames(binding);
    return fields.some((field) => !left.has(field.name) && this.#schemas.isRequired(field));
  }

  #successes(both: readonly Binding[], isLookup: boolean): Schema {
    const [binding] = both as [Binding];
    const { successStatus, method, rawBody } = binding;
    const description = commentOf(method.output) || 'It is done.';
    if (rawBody !== undefined && method.methodKind === 'server_streaming') return downloads(binding, description);
    if (binding.isWholeHttp) return { '2XX': wholeAnswer, default: wholeAnswer };
    if (binding.events !== undefined) return this.#eventResponses(binding, binding.events);
    if (successStatus === 204) return { 204: { description, headers } };
    const schemas = both.map((each) => this.#responseSchema(each));
    const schema = schemas.length > 1 ? { anyOf: schemas } : schemas[0]!;
    const content = isBody(answeredType(binding)) ? anyBytes : streamed(binding, schema);
    if (isLookup && !isStream(binding)) return { 200: { description, headers: versioned, content }, ...unchanged };
    return { [successStatus]: { description, headers, content } };
  }

  /** The responses of an RPC whose messages are server-sent events. */
  #eventResponses({ method, successStatus }: Binding, { askedBy, members, last: ends }: Events): Schema {
    const fields = method.output.fields.filter(({ number }) => members.has(number));
    const types = fields.map(({ name, message }) =>
      message?.typeName === statusType ? `\`${name}\`: the error` : `\`${name}\`: ${message!.name}`,
    );
    // An event, as parsed by a client.
    const events = {
      type: 'object',
      description: `Server-sent events (WHATWG HTML, 9.2), each with its type, its id, and a value of JSON: ${types.join(', ')}.`,
      properties: {
        event: { type: 'string', enum: fields.map(({ name }) => name) },
        id: { type: 'string' },
        data: { type: 'string', contentMediaType: 'application/json' },
        retry: { type: 'integer' },
      },
      required: ['event', 'data'],
    };
    const content = { 'text/event-stream': { schema: events } };
    const description = commentOf(method.output);
    const nothing = { 204: { description: 'There is nothing to tell.', headers } };
    if (askedBy === undefined) return { 200: { description, headers, content }, ...nothing };
    const numbers = new Set(ends.map(({ number }) => number));
    const values = fields.filter(({ number, message }) => numbers.has(number) && message?.typeName !== statusType);
    const schemas = values.map((field) => this.#schemas.message(field.message!, 'response'));
    const once = [...new Map(schemas.map((schema) => [JSON.stringify(schema), schema])).values()];
    const last = once.length === 1 ? once[0]! : { description: 'The value of the last event.', anyOf: once };
    return {
      [successStatus]: { description, headers, content: { 'application/json': { schema: last }, ...content } },
      ...nothing,
    };
  }

  #problems({ answers, isWholeHttp }: Binding, problems: readonly KnownProblem[]): Record<string, Schema> {
    const responses = problemResponses(problems, answers?.style);
    // The protocol may have answers of its own for the same status.
    if (isWholeHttp)
      for (const response of Object.values(responses)) Object.assign(response['content']!, wholeAnswer.content);
    return responses;
  }

  #responseSchema(binding: Binding): Schema {
    const { method, responseBody } = binding;
    if (isEnveloped(binding)) return this.#envelopeSchema(binding);
    if (responseBody === undefined) return this.#schemas.message(method.output, 'response');
    return this.#schemas.field(fieldOf(method.output.fields, responseBody.name), 'response');
  }

  #envelopeSchema({ method: { output }, responseBody }: Binding): Schema {
    const pagination = output.fields.find(({ message }) => message?.typeName === paginationType);
    const data = () => {
      if (responseBody !== undefined)
        return this.#schemas.field(fieldOf(output.fields, responseBody.name), 'enveloped');
      if (pagination === undefined) return this.#schemas.message(output, 'enveloped');
      return this.#schemas.object(output, 'enveloped', new Set([pagination.name]));
    };
    return successSchema(data(), pagination && this.#schemas.field(pagination, 'enveloped'));
  }
}

function isEnveloped({ answers }: Binding): boolean {
  return answers?.style === 'envelope';
}

const statusType = 'google.rpc.Status';

/** The answer of an RPC that takes whole HTTP requests. */
const wholeAnswer = {
  description: 'The answer, as the protocol has it.',
  headers,
  content: { '*/*': { schema: {} } },
};

const adminAccess = 3;

/** Bytes of whatever type. */
const anyBytes = { '*/*': { schema: { type: 'string', format: 'binary' } } };

/** The type of what is answered; undefined if it is no message. */
function answeredType({ method, responseBody }: Binding): string | undefined {
  if (responseBody === undefined) return method.output.typeName;
  return fieldOf(method.output.fields, responseBody.name).message?.typeName;
}

function isBody(typeName: string | undefined): boolean {
  return typeName === 'google.api.HttpBody';
}

/** Whether an answer has an entity tag. */
function hasVersions({ rawBody, events, isWholeHttp }: Binding): boolean {
  return rawBody === undefined && events === undefined && !isWholeHttp;
}

/** Whether a download is answered with an entity tag. */
function hasEntityTag({ rawBody }: Binding): boolean {
  return rawBody?.responseHeaders.some(({ header }) => header === 'etag') ?? false;
}

/** Whether the answer is a stream of messages. */
function isStream({ method: { methodKind }, isJoined }: Binding): boolean {
  if (isJoined) return false;
  return methodKind === 'server_streaming' || methodKind === 'bidi_streaming';
}

/** The content of an answer: a single message, or a stream of messages. */
function streamed(binding: Binding, schema: Schema): Schema {
  if (!isStream(binding)) return { 'application/json': { schema } };
  const line = {
    description: 'Of one message, on a line of its own. An error in the middle is the last line.',
    oneOf: [
      { type: 'object', properties: { result: schema }, required: ['result'] },
      { type: 'object', properties: { error: { $ref: '#/components/schemas/Problem' } }, required: ['error'] },
    ],
  };
  return { 'application/json': { schema: line }, 'text/event-stream': { schema: line } };
}

/** The tag of an endpoint: the short name of its service. */
export function tagOf({ method }: Binding): string {
  return method.parent.name.replace(/Service$/, '') || method.parent.name;
}

function bodyKindOf({ body, rawBody, method }: Binding): BodyKind {
  if (rawBody !== undefined && method.methodKind === 'client_streaming') return 'bytes';
  return body === 'none' ? 'none' : 'json';
}

/** The names of top-level request fields that the path sets. */
function boundNames({ variables }: Binding): Set<string> {
  return new Set(variables.filter(({ length }) => length === 1).map(([field]) => field!.name));
}

function jsonContent(schema: Schema, example: unknown): Schema {
  return { 'application/json': { schema, ...(example !== undefined && { example }) } };
}

/** The responses of a download: the whole content, a range, or 304. */
function downloads({ successStatus, rawBody, method }: Binding, description: string): Schema {
  const fields = rawBody!.responseHeaders.filter(({ header }) => header !== 'content-type');
  const has = (header: string) => fields.some((field) => field.header === header);
  const describedHeaders = (left: readonly string[]) => ({
    'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' },
    ...Object.fromEntries(
      fields
        .filter(({ header }) => !left.includes(header))
        .map(({ header, field }) => [
          headerName(header),
          { description: commentOf(fieldOf(method.output.fields, field.name)), schema: { type: 'string' } },
        ]),
    ),
  });
  return {
    [successStatus]: { description, headers: describedHeaders(['content-range']), content: anyBytes },
    ...(has('content-range') && {
      206: { description: 'The part of it that was asked for.', headers: describedHeaders([]), content: anyBytes },
    }),
    ...(has('etag') && {
      304: {
        description: 'The client has it already: If-None-Match names its entity tag.',
        headers: {
          'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' },
          ETag: { description: 'The entity tag.', schema: { type: 'string' } },
        },
      },
    }),
  };
}
