import { globSync, readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary, getOption, type DescService } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import test from 'ava';
import { registry as hubRegistry } from '#lib/rpc/schema.ts';
import { readRoutes } from '../bindings.ts';
import { documentOf } from '../own-routes.ts';
import { endpointsOf } from '../rpc-routes.ts';
import { writtenPath } from './operations.ts';
import { ofNoEndpoint } from './problems.ts';

const bindings = readRoutes(hubRegistry, () => true);
const document = documentOf(bindings, hubRegistry);

interface Parameter {
  name: string;
  in: string;
  schema: object;
  example?: unknown;
}

interface Operation {
  operationId: string;
  summary: string;
  tags: string[];
  security?: object[];
  parameters: Parameter[];
  requestBody?: { required: boolean; content: Record<string, { schema: object; example?: unknown }> };
  responses: Record<string, Response & { $ref?: string }>;
}

interface Response {
  description: string;
  content?: Record<string, { schema: { properties?: { error_code?: { enum: string[] } } }; example?: unknown }>;
  links?: Record<string, { operationId: string; parameters: Record<string, string> }>;
}

const paths = document.paths as unknown as Record<string, Record<string, Operation>>;
const operations = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

function operationOf(method: string, path: string): Operation {
  return paths[path]![method]!;
}

function responseOf(operation: Operation, status: number): Response {
  const response = operation.responses[status]!;
  const { $ref: ref } = response;
  return ref === undefined ? response : (document.components.responses[ref.split('/').at(-1)!] as unknown as Response);
}

function codesOf(operation: Operation, status: number): string[] {
  return responseOf(operation, status).content!['application/problem+json']!.schema.properties!.error_code!.enum;
}

const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats.default(ajv);
for (const format of ['int32', 'int64', 'uint32', 'uint64', 'float', 'double', 'binary']) ajv.addFormat(format, true);
ajv.addSchema(document, 'document');

/** What is wrong with a value by a schema of the document. */
function faults(schema: object, value: unknown): string[] {
  const text = JSON.stringify(schema).replaceAll('"#/', '"document#/');
  const validate = ajv.compile(JSON.parse(text) as object);
  return validate(value) ? [] : validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);
}

const texts = (pattern: string) =>
  globSync(pattern)
    .filter((file) => !/\.test\.ts$|contract/.test(file))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n');

test('the document has every endpoint that is served, and no other', (t) => {
  const served = endpointsOf(bindings).map(({ route }) => `${route.method} ${writtenPath(route.template).path}`);
  const own = ['/', '/health', '/ready', '/openapi.json', '/docs', '/redoc', '/docs/{file}', '/redoc/{file}'];
  t.deepEqual(
    operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).toSorted(),
    [...served, ...own.map((path) => `GET ${path}`)].toSorted(),
  );
  t.is(new Set(operations.map(({ operation }) => operation.operationId)).size, operations.length);
});

test('every endpoint has a summary, a success, and for each error a code', (t) => {
  for (const { path, method, operation } of operations) {
    const name = `${method} ${path}`;
    t.regex(operation.summary, /^[A-Z]/, name);
    t.true(
      Object.keys(operation.responses).some((status) => status.startsWith('2')),
      name,
    );
    t.true(
      Object.keys(operation.responses).some((status) => status === '500'),
      name,
    );
  }
});

test('a token is asked for where the access rule does, and nowhere else', (t) => {
  const open = operations.filter(({ operation }) => operation.security?.length === 0);
  const names = open.map(({ method, path }) => `${method} ${path}`).filter((name) => !/get \/(docs|redoc)/.test(name));
  t.deepEqual(names.toSorted(), [
    'get /',
    'get /health',
    'get /openapi.json',
    'get /ready',
    'post /auth/token',
    'put /v1/files/upload',
  ]);
  for (const { operation } of operations) {
    const needsToken = operation.security?.length !== 0;
    const codes = operation.responses[401] === undefined ? [] : codesOf(operation, 401);
    t.is(codes.includes('TOKEN_MISSING'), needsToken, operation.operationId);
  }
});

test('every code that the gateway answers with stands in the document, or belongs to no endpoint', (t) => {
  const known = new Set([
    ...ofNoEndpoint,
    ...operations.flatMap(({ operation }) =>
      Object.keys(operation.responses)
        .filter((status) => Number(status) >= 400)
        .flatMap((status) => {
          const schema = responseOf(operation, Number(status)).content!['application/problem+json']!.schema;
          return schema.properties?.error_code?.enum ?? [];
        }),
    ),
  ]);
  const codes = [...texts('gateway/**/*.ts').matchAll(/new Problem\(\s*[^,]+,\s*'([A-Z_]+)'/g)].map(
    ([, code]) => code!,
  );
  t.true(codes.length > 15);
  for (const code of codes) t.true(known.has(code), code);
});

test('every reason of an error of a service stands in its proto, unless no caller sees it', (t) => {
  /** Reasons of what is consumed or delivered, and of what is turned into something else before it is answered. */
  const unseen: Record<string, readonly string[]> = {
    connectors: [
      'CONNECTOR_STOPPED',
      'DELIVERIES_LEFT',
      'DELIVERY_CANCELLED',
      'DELIVERY_DEADLINE',
      'REFUSED_BY_NETWORK',
      'UNREADABLE_EVENT',
    ],
    file: ['UPLOAD_CLOSED'],
    router: ['UNREADABLE_EVENT'],
  };
  /** Of any call. */
  const everywhere = ['CANCELLED', 'TOKEN_INVALID', 'INVALID_ARGUMENT'];
  const known = hubRegistry.getExtension('chat4all.options.v1.known_errors')!;
  const services = [...hubRegistry].filter((type): type is DescService => type.kind === 'service');
  for (const folder of ['auth', 'conversation', 'message', 'file', 'router', 'connectors']) {
    const declared = services
      .filter(({ typeName }) => typeName.startsWith(`chat4all.${folder}.`))
      .flatMap((service) => getOption(service, known) as unknown as { reason: string }[])
      .map(({ reason }) => reason);
    const thrown = [...texts(`services/${folder}/**/*.ts`).matchAll(/new HubError\(\s*'[A-Z_]+',\s*'([A-Z_]+)'/g)].map(
      ([, reason]) => reason!,
    );
    const missing = thrown.filter(
      (reason) => ![...declared, ...everywhere, ...(unseen[folder] ?? [])].includes(reason),
    );
    t.deepEqual(missing, [], folder);
  }
});

test('an RPC names its errors by reasons that its service knows', (t) => {
  const codes = codesOf(operationOf('post', '/v1/messages'), 409);
  t.deepEqual(codes.toSorted(), ['MESSAGE_ID_IN_USE', 'MESSAGE_ID_REUSED']);
  t.deepEqual(codesOf(operationOf('post', '/v1/files/initiate'), 413), ['FILE_TOO_LARGE', 'PAYLOAD_TOO_LARGE']);
  t.deepEqual(codesOf(operationOf('get', '/v1/files/{file_id}/content'), 416), ['RANGE_NOT_SATISFIABLE']);
  t.true(codesOf(operationOf('get', '/v1/users'), 503).includes('DATABASE_UNAVAILABLE'));
});

test('examples are as their schemas say', (t) => {
  let checked = 0;
  for (const { operation } of operations) {
    for (const { name, schema, example } of operation.parameters) {
      if (example === undefined) continue;
      t.deepEqual(faults(schema, example), [], `${operation.operationId} ${name}`);
      checked += 1;
    }
    const contents = [
      operation.requestBody?.content,
      ...Object.keys(operation.responses).map((status) => responseOf(operation, Number(status)).content),
    ];
    for (const { schema, example } of contents.flatMap((content) => Object.values(content ?? {}))) {
      if (example === undefined) continue;
      t.deepEqual(faults(schema, example), [], operation.operationId);
      checked += 1;
    }
  }
  t.true(checked > 100);
});

test('rules of fields are keywords of their schemas', (t) => {
  const { schemas } = document.components as unknown as {
    schemas: Record<string, { required: string[]; properties: Record<string, Record<string, unknown>> }>;
  };
  const { SendMessageRequest: request, Message: message, InitiateUploadRequest: upload } = schemas;
  t.deepEqual(request!.required, ['message_id', 'conversation_id', 'from', 'channels', 'payload']);
  t.like(request!.properties['message_id'], { type: 'string', format: 'uuid' });
  t.like(request!.properties['channels'], { type: 'array', minItems: 1, maxItems: 100 });
  t.like(request!.properties['channels']!['items'], { minLength: 1, maxLength: 64, pattern: '^[^\\u0000]*$' });
  t.deepEqual(request!.properties['priority']!['enum'], ['low', 'normal', 'high']);
  t.like(upload!.properties['file_size'], { type: 'integer', format: 'int64', minimum: 0 });
  t.deepEqual(Object.keys(message!.properties), message!.required);
  t.like(message!.properties['created_at'], { type: 'string', format: 'date-time' });
  const page = operationOf('get', '/v1/conversations').parameters;
  t.like(page.find(({ name }) => name === 'limit')!.schema, { type: 'integer', minimum: 1, maximum: 100 });
  t.like(schemas['GetFileResponse']!.properties['expires_at'], { type: ['string', 'null'], format: 'date-time' });
});

test('what an endpoint makes is linked to the endpoints that take it', (t) => {
  const { links } = responseOf(operationOf('post', '/v1/conversations'), 201);
  t.deepEqual(links!['getConversation'], {
    operationId: 'getConversation',
    parameters: { conversation_id: '$response.body#/conversation_id' },
  });
  t.truthy(responseOf(operationOf('post', '/v1/files/initiate'), 201).links!['uploadChunk']);
});

test('an upload takes bytes, a form, or the JSON of the RPC beside it', (t) => {
  const { requestBody, parameters } = operationOf('patch', '/v1/files/upload');
  t.deepEqual(Object.keys(requestBody!.content), [
    'application/octet-stream',
    'multipart/form-data',
    'application/json',
  ]);
  t.deepEqual(
    parameters.filter(({ name }) => name !== undefined).map((each) => `${each.in} ${each.name}`),
    ['query file_id', 'query chunk_id', 'header Content-Digest'],
  );
});

const descriptors = readFileSync(new URL('../../test/protos/descriptors.binpb', import.meta.url));

test('services without options of ours are described, every rule of google.api.http included', (t) => {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
  const routes = readRoutes(registry, () => true);
  const foreign = documentOf(routes, registry);
  const described = Object.values(foreign.paths).reduce((sum, methods) => sum + Object.keys(methods).length, 0);
  t.true(described > 20);
  const known = new Set(['GET', 'PUT', 'POST', 'DELETE', 'OPTIONS', 'HEAD', 'PATCH', 'TRACE']);
  for (const { route } of endpointsOf(routes)) {
    const { path } = writtenPath(route.template);
    t.is(foreign.paths[path]?.[route.method.toLowerCase()] !== undefined, known.has(route.method), path);
  }
});

test('a stream of messages is described line by line', (t) => {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
  const routes = readRoutes(registry, () => true);
  const foreign = documentOf(routes, registry);
  const contentOf = (isMeant: (kind: string, output: string) => boolean) => {
    const { route } = endpointsOf(routes).find(
      ({ route: { target } }) =>
        isMeant(target.method.methodKind, target.method.output.typeName) &&
        target.rawBody === undefined &&
        target.responseBody === undefined,
    )!;
    const operation = foreign.paths[writtenPath(route.template).path]![route.method.toLowerCase()]!;
    return Object.keys((operation['responses'] as Record<string, Required<Response>>)['200']!.content);
  };
  const lines = contentOf((kind, output) => kind === 'server_streaming' && output !== 'google.api.HttpBody');
  t.deepEqual(lines, ['application/json', 'text/event-stream']);
});
