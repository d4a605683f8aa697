import { globSync, readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary, getOption, type DescService } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import test from 'ava';
import { registry as hubRegistry } from '#lib/rpc/schema.ts';
import { hubRules } from '../dialects/hub/rules.ts';
import { readRoutes } from '../rules/bindings.ts';
import { documentOf } from '../own-routes.ts';
import { endpointsOf } from '../rules/endpoints.ts';
import { writtenPath } from './parameters.ts';
import { ofNoEndpoint } from './problems.ts';

const bindings = readRoutes(hubRegistry, () => true, hubRules);
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
  content?: Record<string, { schema: { properties?: Codes }; example?: unknown }>;
  links?: Record<string, { operationId: string; parameters: Record<string, string> }>;
}

/** Where codes stand: in a problem, or in an envelope. */
interface Codes {
  error_code?: { enum: string[] };
  error?: { properties: { code: { enum: string[] } } };
}

const paths = document.paths as unknown as Record<string, Record<string, Operation>>;
const operations = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

function operationOf(method: string, path: string): Operation {
  return paths[path]![method]!;
}

function responseOf(operation: Operation, status: number | string): Response {
  const response = operation.responses[status]!;
  const { $ref: ref } = response;
  return ref === undefined ? response : (document.components.responses[ref.split('/').at(-1)!] as unknown as Response);
}

function codesOf(operation: Operation, status: number): string[] {
  const { content = {} } = responseOf(operation, status);
  const { properties } = (content['application/problem+json'] ?? content['application/json'])!.schema;
  return properties?.error_code?.enum ?? properties?.error?.properties.code.enum ?? [];
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
  const below = ['/api/v1/health', '/api/v1/live', '/api/v1/ready'];
  const own = [
    '/',
    '/health',
    '/live',
    '/ready',
    ...below,
    '/openapi.json',
    '/docs',
    '/redoc',
    '/docs/{file}',
    '/redoc/{file}',
  ];
  t.deepEqual(
    operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).toSorted(),
    [...served, ...own.map((path) => `GET ${path}`)].toSorted(),
  );
  t.is(new Set(operations.map(({ operation }) => operation.operationId)).size, operations.length);
});

test('no two RPCs share an operationId: those of an RPC must not change since another one has come', (t) => {
  const rpcs = new Map<string, Set<string>>();
  for (const { target } of bindings) {
    rpcs.set(target.operationId, (rpcs.get(target.operationId) ?? new Set()).add(target.rpcPath));
  }
  t.deepEqual(
    [...rpcs].filter(([, paths]) => paths.size > 1).map(([id]) => id),
    [],
  );
  t.is(operationOf('get', '/v1/conversations').operationId, 'listConversations');
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
    'get /api/v1/health',
    'get /api/v1/live',
    'get /api/v1/ready',
    'get /health',
    'get /live',
    'get /openapi.json',
    'get /ready',
    'get /v1/events/by-ticket',
    'post /api/v1/auth/login',
    'post /api/v1/auth/password-reset',
    'post /api/v1/auth/password-reset/{token}',
    'post /api/v1/auth/refresh',
    'post /api/v1/auth/register',
    'post /auth/token',
    'put /v1/files/upload',
  ]);
  for (const { operation } of operations) {
    const needsToken = operation.security?.length !== 0;
    const text = operation.responses[401] === undefined ? '' : responseOf(operation, 401).description;
    t.is(text.includes('there is no bearer token'), needsToken, operation.operationId);
  }
});

test('an API key is as good as a token, but for administrators and where the proto says so', (t) => {
  const takesKeys = (method: string, path: string) =>
    operationOf(method, path).security!.some((requirement) => 'apiKey' in requirement);
  t.true(takesKeys('get', '/v1/users/me'));
  t.true(takesKeys('post', '/v1/messages'));
  t.true(takesKeys('get', '/api/v1/users/me'));
  t.true(takesKeys('post', '/api/v1/tools/{tool_id}/invoke'));
  for (const [method, path] of [
    ['post', '/api/v1/auth/logout'],
    ['get', '/api/v1/users/me/api-keys'],
    ['post', '/api/v1/users/me/api-keys'],
    ['delete', '/api/v1/users/me/api-keys/{key_id}'],
    ['get', '/api/v1/admin/users'],
    ['get', '/v1/admin/audit'],
  ] as const) {
    t.false(takesKeys(method, path), path);
    t.deepEqual(operationOf(method, path).security, [{ bearer: [] }]);
  }
  t.like(document.components.securitySchemes['apiKey'], { type: 'apiKey', in: 'header', name: 'X-API-Key' });
});

test('every code that the gateway answers with stands in the document, or belongs to no endpoint', (t) => {
  const known = new Set([
    ...ofNoEndpoint,
    ...operations.flatMap(({ operation }) =>
      Object.keys(operation.responses)
        .filter((status) => Number(status) >= 400)
        .flatMap((status) => {
          return codesOf(operation, Number(status));
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
      'NO_ANSWER',
      'REFUSED_BY_NETWORK',
      'UNREADABLE_EVENT',
    ],
    // Those that tools tell the model, and those that events of a broken answer have.
    assistant: ['USER_NOT_FOUND', 'INTERNAL', 'DEADLINE_EXCEEDED'],
    conversation: ['BUS_UNAVAILABLE'],
    file: ['UPLOAD_CLOSED'],
    router: ['UNREADABLE_EVENT'],
  };
  /** Of any call. */
  const everywhere = ['CANCELLED', 'TOKEN_INVALID', 'INVALID_ARGUMENT'];
  const known = hubRegistry.getExtension('chat4all.options.v1.known_errors')!;
  const services = [...hubRegistry].filter((type): type is DescService => type.kind === 'service');
  /** The packages of a service that has others than that of its own name. */
  const packages: Record<string, readonly string[]> = { auth: ['auth', 'account', 'identity'] };
  const folders = globSync('services/*/index.ts').map((file) => file.split('/')[1]!);
  t.true(folders.length >= 6);
  for (const folder of folders) {
    const own = packages[folder] ?? [folder];
    const declared = services
      .filter(({ typeName }) => own.some((name) => typeName.startsWith(`chat4all.${name}.`)))
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

test('an RPC that answers in an envelope has its codes, its data and its page described', (t) => {
  const browse = operationOf('get', '/api/v1/tools');
  const { schema } = responseOf(browse, 200).content!['application/json']! as unknown as {
    schema: { properties: { data: object; meta: { properties: object; required: string[] } }; required: string[] };
  };
  t.deepEqual(schema.required, ['data', 'error', 'meta']);
  t.deepEqual(schema.properties.meta.required, ['request_id', 'pagination']);
  const id = '00000000-0000-4000-8000-0000000e0001';
  const tool = { id, name: 'echo', description: 'It says the same' };
  const answer = {
    data: [tool],
    error: null,
    meta: { request_id: '1', pagination: { offset: 0, limit: 20, total: 1 } },
  };
  t.deepEqual(faults(schema, answer), []);
  t.not(faults(schema, { ...answer, data: null }).length, 0);
  t.not(faults(schema, { ...answer, error: {} }).length, 0);
  t.not(faults(schema, { ...answer, data: [{ ...tool, name: null }] }).length, 0);

  const key = (schemaOf(operationOf('get', '/api/v1/users/me/api-keys')) as { required: string[] }).required;
  t.deepEqual(key, ['id', 'name', 'key_prefix', 'active', 'created_at']);

  const invoke = operationOf('post', '/api/v1/tools/{tool_id}/invoke');
  t.deepEqual(codesOf(invoke, 403).toSorted(), ['FORBIDDEN', 'SUBSCRIPTION_REQUIRED', 'TOKEN_LIMIT_EXCEEDED']);
  t.deepEqual(codesOf(invoke, 404), ['NOT_FOUND']);
  t.deepEqual(codesOf(invoke, 503).toSorted(), ['CIRCUIT_OPEN', 'TOOL_TIMEOUT', 'TOOL_UNAVAILABLE', 'UNAVAILABLE']);
  t.deepEqual(codesOf(operationOf('post', '/api/v1/auth/login'), 429), ['RATE_LIMITED']);
  t.deepEqual(codesOf(operationOf('post', '/api/v1/auth/register'), 409).toSorted(), ['EMAIL_TAKEN', 'USERNAME_TAKEN']);
  t.deepEqual(codesOf(operationOf('patch', '/api/v1/users/me'), 400), ['VALIDATION_ERROR']);
  t.deepEqual(Object.keys(responseOf(operationOf('delete', '/api/v1/admin/tools/{tool_id}'), 204)).toSorted(), [
    'description',
    'headers',
  ]);
});

/** The schema of the items in the data of a list. */
function schemaOf(operation: Operation): object {
  const { schema } = responseOf(operation, 200).content!['application/json']! as unknown as {
    schema: { properties: { data: { items: { $ref: string } } } };
  };
  return document.components.schemas[schema.properties.data.items.$ref.split('/').at(-1)!]!;
}

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
      ...Object.keys(operation.responses).map((status) => responseOf(operation, status).content),
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

test('an endpoint that takes only fields that it knows says so', (t) => {
  const schemaAt = (method: string, path: string) =>
    operationOf(method, path).requestBody!.content['application/json']!.schema as Record<string, unknown>;
  const change = schemaAt('patch', '/api/v1/admin/users/{user_id}');
  t.deepEqual(Object.keys(change['properties'] as object), ['role', 'status']);
  t.not(faults(change, { role: 'admin', name: 'x' }).length, 0);
  t.deepEqual(faults(change, { role: 'admin' }), []);
  t.not(faults(schemaAt('patch', '/api/v1/users/me'), { email: 'x' }).length, 0);
  t.deepEqual(
    faults(schemaAt('post', '/v1/messages'), { more: 1 }).filter((fault) => /additional/.test(fault)),
    [],
  );
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
  const routes = readRoutes(registry, () => true, hubRules);
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
  const routes = readRoutes(registry, () => true, hubRules);
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

test('events, joined arrays and whole HTTP answers are described', (t) => {
  const chat = operationOf('post', '/api/{user_id}/chat');
  const { content } = responseOf(chat, 200);
  t.deepEqual(Object.keys(content!), ['application/json', 'text/event-stream']);
  const example = { conversation_id: 1, response: 'x', tool_calls: [], message_id: 2, model: 'm', usage: null };
  const schema = content!['application/json']!.schema;
  t.deepEqual(faults(schema, { ...example, finish_reason: 'stop', approvals: [] }), []);
  t.not(faults(schema, { response: 7 }).length, 0);
  t.not(faults(schema, { delta: 'no event that a stream ends with' }).length, 0);
  const event = content!['text/event-stream']!.schema;
  t.deepEqual(faults(event, { event: 'start', id: '1', data: '{}' }), []);
  t.not(faults(event, { event: 'none', id: '1', data: '{}' }).length, 0);
  t.not(faults(event, { event: 'start', id: '1' }).length, 0);
  t.true(chat.parameters.some(({ name, in: where }) => name === 'Idempotency-Key' && where === 'header'));

  const follow = operationOf('get', '/api/{user_id}/chat/{conversation_id}/stream');
  t.deepEqual(Object.keys(responseOf(follow, 200).content!), ['text/event-stream']);
  t.is(responseOf(follow, 204).content, undefined);
  t.true(follow.parameters.some(({ name }) => name === 'Last-Event-Id'));
  t.false(follow.parameters.some(({ name }) => name === 'If-None-Match'));

  const tasks = operationOf('get', '/api/{user_id}/tasks');
  t.like(responseOf(tasks, 200).content!['application/json']!.schema, { type: 'array' });
  t.deepEqual(Object.keys(responseOf(tasks, 200).content!), ['application/json']);

  const whole = operationOf('post', '/v1/chat/completions');
  t.true(whole.requestBody!.required);
  t.deepEqual(Object.keys(responseOf(whole, '2XX').content!), ['*/*']);
  const model = operationOf('get', '/v1/models/{model}');
  t.deepEqual(
    model.parameters.filter(({ name }) => name !== undefined).map((each) => `${each.in} ${each.name}`),
    ['path model'],
  );
});

test('problems are described in the style of their service, and as they are told', (t) => {
  const schemaAt = (method: string, path: string, status: number) =>
    Object.entries(responseOf(operationOf(method, path), status).content!)[0]!;
  for (const [method, path, member] of [
    ['get', '/api/{user_id}/tasks', 'code'],
    ['post', '/v1/chat/completions', 'error'],
  ] as const) {
    const [type, { schema, example }] = schemaAt(method, path, 401);
    t.is(type, 'application/problem+json');
    t.deepEqual(faults(schema, example), []);
    const { [member]: _left, ...others } = example as Record<string, unknown>;
    t.not(faults(schema, others).length, 0, member);
  }
});
