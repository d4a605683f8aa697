import type { Registry } from '@bufbuild/protobuf';
import { requestIdPattern } from '#lib/context.ts';
import type { Endpoint } from '../rules/endpoints.ts';
import { envelopedPaths } from '../rules/answer-styles.ts';
import { envelopeCode } from '../calls/envelope.ts';
import { commentOf } from './comments.ts';
import { Operations, tagOf, type Operation } from './operations.ts';
import { KnownErrors, ofNoEndpoint } from './problems.ts';
import { problemSchema, styledProblemSchemas } from './responses.ts';
import { failureSchemas } from './envelopes.ts';
import type { Schema } from './rules.ts';
import { Schemas } from './schemas.ts';

/** The title and other information of an OpenAPI document. */
export interface About {
  title: string;
  version: string;
  description: string;
}

/** An OpenAPI document, as far as its parts are looked at here. */
export interface OpenApi extends Schema {
  paths: Record<string, Record<string, Schema>>;
  components: Record<'schemas' | 'responses' | 'parameters' | 'headers' | 'securitySchemes', Record<string, Schema>>;
}

/** The tag of the gateway's own endpoints. */
export const ownTag = 'Gateway';

const apiKey = {
  type: 'apiKey',
  in: 'header',
  name: 'X-API-Key',
  description: 'An API key. Where a bearer token is sent, too, that counts.',
};

/** Whether errors of its requests are enveloped. */
function isOfEnvelopes(operation: Operation): boolean {
  return refersTo(operation, 'Failure');
}

/** Whether an answer is of a schema whose name begins so. */
function refersTo({ body: { responses } }: Operation, name: string): boolean {
  return JSON.stringify(responses).includes(`#/components/schemas/${name}`);
}

/** Methods that OpenAPI knows. */
const methods = new Set(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']);

/**
 * The OpenAPI 3.1 document of a gateway: the endpoints for RPCs, from their descriptors, and the gateway's own. Endpoints with a method
 * that OpenAPI doesn't have are left out.
 */
export function openApiDocument(
  endpoints: readonly Endpoint[],
  own: readonly Operation[],
  registry: Registry,
  about: About,
): OpenApi {
  const schemas = new Schemas(registry);
  const operations = new Operations(schemas, new KnownErrors(registry));
  const described = endpoints.map((endpoint) => operations.of(endpoint)).filter(({ method }) => methods.has(method));
  const all = [...described, ...own];
  link(all, schemas);
  const responses = shareResponses(all);
  const prefixes = envelopedPaths(endpoints.map(({ route }) => route));
  const services = new Map(endpoints.map(({ route: { target } }) => [tagOf(target), target.method.parent]));
  const paths: OpenApi['paths'] = {};
  for (const { path, method, body } of all) (paths[path] ??= {})[method] = body;
  return {
    openapi: '3.1.0',
    info: { ...about, description: `${about.description}\n\n${conventions}${envelopeConventions(prefixes)}` },
    servers: [{ url: '/' }],
    tags: [
      ...[...services].map(([name, service]) => ({ name, description: commentOf(service) || service.typeName })),
      ...(own.length > 0 ? [{ name: ownTag, description: 'What the gateway itself answers.' }] : []),
    ],
    paths,
    components: {
      schemas: {
        ...schemas.components,
        Problem: problemSchema,
        ...(all.some(isOfEnvelopes) && failureSchemas),
        ...Object.fromEntries(
          Object.entries(styledProblemSchemas).filter(([name]) => all.some((each) => refersTo(each, name))),
        ),
      },
      responses,
      parameters: { 'X-Request-ID': requestIdParameter },
      headers,
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: 'The token that logging in returns.' },
        ...(all.some(({ body }) => JSON.stringify(body['security'] ?? []).includes('apiKey')) && { apiKey }),
      },
    },
  };
}

/** Describes the conventions below a path with enveloped answers. */
function envelopeConventions(prefixes: readonly string[]): string {
  if (prefixes.length === 0) return '';
  return `

Under ${prefixes.map((prefix) => `\`${prefix}\``).join(' and ')} everything but \`health\` and \`ready\` comes in an envelope instead, \`{"data", "error", "meta"}\`, \
errors too: they have a \`code\`, a \`message\` and \`details\` of all wrong fields. What has no value is left out there, never null. \
Nothing there is \`${envelopeCode(404, '')}\`, and nothing with that method \`${envelopeCode(405, '')}\`.`;
}

const conventions = `Errors are \`application/problem+json\` (RFC 9457), each with an \`error_code\` that stays as it is. \
Where nothing is there, or nothing with that method, it is ${ofNoEndpoint.map((code) => `\`${code}\``).join(' or ')}.

Names are in snake_case, times are RFC 3339 in UTC, enums are short lower-case names. An answer has every field: an empty list, 0, \
\`""\` or null rather than nothing. A request may leave out what isn't required; unknown fields in it are ignored (unless an endpoint says otherwise), a list may be a \
single value, and \`null\` is as good as nothing.

Every GET may be a HEAD, and is answered with an entity tag, and with gzip to whom asks for it. Every answer says in \`RateLimit\` \
and \`RateLimit-Policy\` (draft-ietf-httpapi-ratelimit-headers) how many requests are left. The header \`Grpc-Timeout\` (\`500m\`, \`10S\`) shortens how long a call may take.`;

const requestIdParameter: Schema = {
  name: 'X-Request-ID',
  in: 'header',
  description:
    'An id of the client for this request, to find it again in the logs: 1 to 128 letters, digits and `._:-`. Any other is \
replaced.',
  schema: { type: 'string' },
};

const headers: Record<string, Schema> = {
  'X-Request-ID': {
    description: 'The id of this request: the one that the client chose, or a new one.',
    schema: { type: 'string', pattern: requestIdPattern.source },
  },
  RateLimit: {
    description: 'How many requests are left (`r`) to this user or address in the seconds to come (`t`).',
    schema: { type: 'string' },
  },
  'RateLimit-Policy': {
    description: 'How many requests (`q`) a user or an address may make in so many seconds (`w`).',
    schema: { type: 'string' },
  },
  'WWW-Authenticate': { description: 'How to prove who one is.', schema: { type: 'string', const: 'Bearer' } },
  'Retry-After': {
    description: 'Seconds until it is worth trying again.',
    schema: { type: 'integer', minimum: 1 },
  },
};

/** Adds links to answers: which endpoints accept an id that an answer contains, such as `file_id`. */
function link(operations: readonly Operation[], { components }: Schemas): void {
  const places = operations.flatMap(({ body }) =>
    (body['parameters'] as { name: string; in: string }[])
      .filter((parameter) => parameter.in === 'path' || (parameter.in === 'query' && parameter.name.endsWith('_id')))
      .map((parameter) => ({ ...parameter, operationId: body['operationId'] as string })),
  );
  for (const { method, body } of operations) {
    // What is only read was there before.
    if (method === 'get') continue;
    for (const [status, response] of Object.entries(body['responses'] as Record<string, Schema>)) {
      if (!status.startsWith('2')) continue;
      const names = propertiesOf(jsonSchemaOf(response), components);
      const links = places
        .filter(({ name, operationId }) => names.has(name) && operationId !== body['operationId'])
        .map(({ name, operationId }) => [
          operationId,
          { operationId, parameters: { [name]: `$response.body#/${name}` } },
        ]);
      if (links.length > 0) response['links'] = Object.fromEntries(links) as Schema;
    }
  }
}

function jsonSchemaOf({ content }: Schema): Schema {
  return (content as Record<string, { schema: Schema }> | undefined)?.['application/json']?.schema ?? {};
}

/** The names of what an object has, in any of its forms. */
function propertiesOf(schema: Schema, components: Readonly<Record<string, Schema>>): Set<string> {
  const { $ref: ref, anyOf = [], properties = {} } = schema as { $ref?: string; anyOf?: Schema[]; properties?: Schema };
  const referred = ref === undefined ? undefined : components[ref.slice(ref.lastIndexOf('/') + 1)];
  const parts = [...anyOf, ...(referred === undefined ? [] : [referred])];
  return new Set([...Object.keys(properties), ...parts.flatMap((part) => [...propertiesOf(part, components)])]);
}

/** Moves responses that several operations share to the components. @returns those, by name */
function shareResponses(operations: readonly Operation[]): Record<string, Schema> {
  const all = operations.flatMap(({ body }) => Object.entries(body['responses'] as Record<string, Schema>));
  const shared = [...Map.groupBy(all, ([, response]) => JSON.stringify(response))].filter(
    ([, same]) => same.length > 1,
  );
  const names = new Map<string, string>();
  for (const [text, [first]] of shared.toSorted(([, one], [, other]) => other.length - one.length)) {
    const [status, response] = first!;
    const title = String(response['description'])
      .split('\n', 1)[0]!
      .replaceAll(/[^A-Za-z]+(.?)/g, (_, next: string) => next.toUpperCase());
    const base = Number(status) < 400 ? `Status${status}` : title;
    let name = base;
    for (let number = 2; [...names.values()].includes(name); number++) name = `${base}${number}`;
    names.set(text, name);
  }
  for (const { body } of operations) {
    const responses = body['responses'] as Record<string, Schema>;
    for (const [status, response] of Object.entries(responses)) {
      const name = names.get(JSON.stringify(response));
      if (name !== undefined) responses[status] = { $ref: `#/components/responses/${name}` };
    }
  }
  return Object.fromEntries([...names].map(([text, name]) => [name, JSON.parse(text) as Schema]));
}
