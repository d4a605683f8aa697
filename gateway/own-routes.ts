import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import { envelopedPaths } from './rules/answer-styles.ts';
import type { Binding } from './rules/bindings.ts';
import { assetNames, type Docs, type Page } from './openapi/pages.ts';
import type { ConsoleFiles } from './console-files.ts';
import type { HealthAnswers } from './health.ts';
import { openApiDocument, ownTag, type OpenApi } from './openapi/document.ts';
import { unchanged, versioned, type Operation } from './openapi/operations.ts';
import { conditions } from './openapi/parameters.ts';
import { ownProblems, preconditionFailed } from './openapi/problems.ts';
import { problemResponses } from './openapi/responses.ts';
import type { Schema } from './openapi/rules.ts';
import { parseTemplate, type Route } from './rules/path-template.ts';
import { endpointsOf } from './rules/endpoints.ts';
import type { Handler } from './calls/rpc-routes.ts';

/** What answers the gateway's own endpoints. */
interface Answers {
  health: HealthAnswers;
  docs: Docs;
  consoleFiles: ConsoleFiles;
}

interface OwnEndpoint {
  path: string;
  answer(from: Answers, response: ServerResponse, values: readonly string[]): Promise<void> | void;
  /** Its parts that differ from one to the other. */
  operation: { operationId: string; summary: string; description?: string; parameters?: Schema[]; responses: Schema };
  /** Whether what is wrong with a request for it is told in an envelope. */
  isEnveloped?: boolean;
}

const headers = { 'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' } };
function runs(status: readonly string[], more: Schema = {}): Schema {
  return {
    type: 'object',
    properties: {
      status: { type: 'string', enum: status },
      service: { type: 'string', description: 'Who answers.' },
      version: { type: 'string', description: 'Its version.' },
      ...more,
    },
    required: ['status', 'service', 'version', ...Object.keys(more)],
  };
}

const dependencies = {
  type: 'object',
  additionalProperties: { type: 'string', enum: ['up', 'down'] },
  description: 'Each service behind the gateway and what it depends on, by name.',
};
const optionalDependencies = {
  ...dependencies,
  description:
    'What services can do without, by name, such as MCP servers of others: one that is down leaves the gateway ready.',
};
const features = {
  ...dependencies,
  description:
    'Each feature, such as messages and files: up while all that it needs is, whatever is down otherwise. A load balancer that is to ' +
    'go on for those that work asks /live.',
};
const database = (...states: string[]): Schema => ({
  type: 'string',
  enum: states,
  description: 'Whether the databases of the services are there.',
});
const ready = runs(['ready'], {
  database: database('connected'),
  features,
  dependencies,
  optional_dependencies: optionalDependencies,
});
const unready = runs(['not_ready'], {
  reason: { type: 'string', enum: ['unavailable', 'stopping'], description: 'Why it is not ready.' },
  database: database('connected', 'disconnected'),
  features,
  dependencies,
  optional_dependencies: optionalDependencies,
});

function answered(description: string, schema: Schema): Schema {
  return { description, headers, content: { 'application/json': { schema } } };
}

function page(description: string): Schema {
  const content = { 'text/html': { schema: { type: 'string' } } };
  return { 200: { description, headers: versioned, content }, ...unchanged, ...problemResponses([preconditionFailed]) };
}

function assetEndpoint(of: Page, operationId: string): OwnEndpoint {
  const content = { '*/*': { schema: { type: 'string', format: 'binary' } } };
  return {
    path: `/${of}/{file}`,
    answer: ({ docs }, response, [file]) => docs.asset(response, of, file as string),
    operation: {
      operationId,
      summary: `A file that /${of} loads`,
      parameters: [
        { name: 'file', in: 'path', required: true, schema: { type: 'string', enum: assetNames(of) } },
        ...conditions,
      ],
      responses: {
        200: { description: 'The file.', headers: versioned, content },
        ...unchanged,
        ...problemResponses([
          { status: 400, code: 'MALFORMED_PATH', when: 'the path has a wrong percent-encoding' },
          { status: 404, code: 'ROUTE_NOT_FOUND', when: 'there is no such file' },
          preconditionFailed,
          ...ownProblems,
        ]),
      },
    },
  };
}

function healthEndpoint(path: string, operationId: string, isEnveloped = false): OwnEndpoint {
  return {
    path,
    isEnveloped,
    answer: ({ health }, response) => health.health(response),
    operation: {
      operationId,
      summary: 'Whether the gateway runs',
      responses: { 200: answered('It runs.', runs(['ok'])) },
    },
  };
}

function liveEndpoint(path: string, operationId: string, isEnveloped = false): OwnEndpoint {
  const stopping = runs(['stopping']);
  return {
    path,
    isEnveloped,
    answer: ({ health }, response) => health.live(response),
    operation: {
      operationId,
      summary: 'Whether the gateway takes requests, whatever is behind it',
      responses: {
        200: answered('It takes requests.', runs(['live'])),
        503: {
          description: 'The gateway is about to stop; or there is too much to do.',
          headers: { ...headers, 'Retry-After': { $ref: '#/components/headers/Retry-After' } },
          content: contentOr(stopping, isEnveloped),
        },
      },
    },
  };
}

/** What answers with a status that also says that there is too much to do. */
function contentOr(schema: Schema, isEnveloped: boolean): Schema {
  const json = 'application/json';
  return isEnveloped
    ? { [json]: { schema: { anyOf: [schema, { $ref: '#/components/schemas/Failure' }] } } }
    : { [json]: { schema }, 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
}

function readyEndpoint(path: string, operationId: string, isEnveloped = false): OwnEndpoint {
  return {
    path,
    isEnveloped,
    answer: ({ health }, response) => health.ready(response),
    operation: {
      operationId,
      summary: 'Whether the gateway and all that is behind it can work',
      responses: {
        200: answered('Everything is up.', ready),
        503: {
          description: 'Something is down, or the gateway is about to stop; or there is too much to do.',
          headers: { ...headers, 'Retry-After': { $ref: '#/components/headers/Retry-After' } },
          content: contentOr(unready, isEnveloped),
        },
      },
    },
  };
}

const rootEndpoints: readonly OwnEndpoint[] = [
  healthEndpoint('/', 'getRoot'),
  healthEndpoint('/health', 'getHealth'),
  liveEndpoint('/live', 'getLiveness'),
  readyEndpoint('/ready', 'getReadiness'),
  {
    path: '/openapi.json',
    answer: ({ docs }, response) => docs.document(response),
    operation: {
      operationId: 'getOpenApi',
      summary: 'This document',
      parameters: [...conditions],
      responses: {
        200: { ...answered('OpenAPI 3.1.', { type: 'object' }), headers: versioned },
        ...unchanged,
        ...problemResponses([preconditionFailed]),
      },
    },
  },
  {
    path: '/docs',
    answer: ({ docs }, response) => docs.page(response, 'docs'),
    operation: {
      operationId: 'getDocs',
      summary: 'This document to read and to try out, in Swagger UI',
      parameters: [...conditions],
      responses: page('The page.'),
    },
  },
  {
    path: '/redoc',
    answer: ({ docs }, response) => docs.page(response, 'redoc'),
    operation: {
      operationId: 'getRedoc',
      summary: 'This document to read, in Redoc',
      parameters: [...conditions],
      responses: page('The page.'),
    },
  },
  assetEndpoint('docs', 'getDocsFile'),
  assetEndpoint('redoc', 'getRedocFile'),
];

const { version, description } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as Record<'version' | 'description', string>;

/** The own endpoints of a gateway, with those below each of the paths where answers come in an envelope. */
function endpointsFor(prefixes: readonly string[]): OwnEndpoint[] {
  const below = prefixes.flatMap((prefix, index) => {
    const suffix = index === 0 ? '' : String(index + 1);
    return [
      healthEndpoint(`${prefix}/health`, `getApiHealth${suffix}`, true),
      liveEndpoint(`${prefix}/live`, `getApiLiveness${suffix}`, true),
      readyEndpoint(`${prefix}/ready`, `getApiReadiness${suffix}`, true),
    ];
  });
  return [...rootEndpoints, ...below];
}

/** The paths that those who watch over the gateway ask for every second. */
export function watchedPaths(prefixes: readonly string[]): ReadonlySet<string> {
  return new Set([
    '/',
    ...['', ...prefixes].flatMap((prefix) => [`${prefix}/health`, `${prefix}/live`, `${prefix}/ready`]),
  ]);
}

/** The OpenAPI document of all that a gateway with these routes serves. */
export function documentOf(routes: readonly Route<Binding>[], registry: Registry): OpenApi {
  const about = { title: 'Chat4All', version, description: `${description}.` };
  const prefixes = envelopedPaths(routes);
  return openApiDocument(endpointsOf(routes), ownOperations(prefixes), registry, about);
}

function ownOperations(prefixes: readonly string[]): Operation[] {
  return endpointsFor(prefixes).map(
    ({ path, isEnveloped = false, operation: { parameters = [], responses, ...operation } }) => ({
      path,
      method: 'get',
      body: {
        ...operation,
        tags: [ownTag],
        security: [],
        parameters: [...parameters, { $ref: '#/components/parameters/X-Request-ID' }],
        responses: {
          ...problemResponses(ownProblems, isEnveloped ? 'envelope' : undefined),
          ...structuredClone(responses),
        },
      },
    }),
  );
}

/** The console is for people: it is no part of the API, nor of its documentation. */
function consoleRoutes({ consoleFiles }: Answers): Route<Handler>[] {
  const page: Handler = (_request, response) => consoleFiles.page(response);
  const asset: Handler = (_request, response, [file]) => consoleFiles.asset(response, file as string);
  return [
    { method: 'GET', template: parseTemplate('/console'), target: page },
    { method: 'GET', template: parseTemplate('/console/{view=**}'), target: page },
    { method: 'GET', template: parseTemplate('/console/assets/{file}'), target: asset },
  ];
}

/** The path by which the route of a request is found. People put a slash behind the path of a view. */
export function routedPath(pathname: string): string {
  return pathname.startsWith('/console/') ? pathname.replace(/\/+$/, '') : pathname;
}

/** The routes to the gateway's own endpoints. @param prefixes paths below which answers come in an envelope */
export function ownRoutes(answers: Answers, prefixes: readonly string[]): Route<Handler>[] {
  const endpoints = endpointsFor(prefixes).map(({ path, answer }): Route<Handler> => ({
    method: 'GET',
    template: parseTemplate(path),
    target: (_request, response, values) => answer(answers, response, values),
  }));
  return [...endpoints, ...consoleRoutes(answers)];
}
