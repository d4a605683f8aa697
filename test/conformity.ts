import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

/** What of an OpenAPI document is looked at here. */
export interface OpenApi {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object>; responses: Record<string, Response> };
}

interface Operation {
  operationId: string;
  requestBody?: { content: Record<string, { schema: object; example?: unknown }> };
  responses: Record<string, Response | { $ref: string }>;
}

interface Response {
  headers?: Record<string, unknown>;
  content?: Record<string, { schema: object }>;
}

/** Checks answers against what an OpenAPI document says of them. */
export interface Conformity {
  /** What is wrong with an answer; undefined if nothing is. */
  fault(method: string, path: string, answer: { status: number; headers: Headers; body: unknown }): string | undefined;
}

/** Opens the check for an OpenAPI 3.1 document; each schema is compiled when it is needed first. */
export function openConformity(document: OpenApi): Conformity {
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: true });
  addFormats.default(ajv);
  for (const format of ['int32', 'int64', 'uint32', 'uint64', 'float', 'double', 'binary']) ajv.addFormat(format, true);
  ajv.addSchema(document, 'document');
  const compiled = new Map<string, ValidateFunction>();
  const paths = Object.keys(document.paths)
    .map((path) => ({ path, pattern: patternOf(path) }))
    // A literal beats a variable.
    .toSorted(({ path: one }, { path: other }) => variables(one) - variables(other));

  const validatorAt = (pointer: string) => {
    let validator = compiled.get(pointer);
    if (validator === undefined) compiled.set(pointer, (validator = ajv.compile({ $ref: `document#${pointer}` })));
    return validator;
  };

  return {
    fault(method, target, { status, headers, body }) {
      const pathname = target.split('?', 1)[0]!;
      const path = paths.find(({ pattern }) => pattern.test(pathname))?.path;
      const verb = (method === 'HEAD' ? 'GET' : method).toLowerCase();
      const operation = path === undefined ? undefined : document.paths[path]?.[verb];
      // Neither what isn't there nor a wrong method belongs to an endpoint.
      if (path === undefined || operation === undefined) return undefined;
      const keys = [String(status), `${String(status).charAt(0)}XX`, 'default'];
      const key = keys.find((each) => operation.responses[each] !== undefined) ?? 'none';
      const stated = operation.responses[key];
      if (stated === undefined) return `${operation.operationId} says nothing of ${status}`;
      const isShared = '$ref' in stated;
      const response = isShared ? document.components.responses[stated.$ref.split('/').at(-1)!]! : stated;
      for (const name of Object.keys(response.headers ?? {})) {
        if (name === 'X-Request-ID' && !headers.has(name)) return `${operation.operationId} has no ${name}`;
      }
      if (body === undefined || method === 'HEAD') return undefined;
      const type = (headers.get('content-type') ?? '').split(';', 1)[0]!;
      const shown = [type, '*/*'].find((each) => response.content?.[each] !== undefined);
      if (shown === undefined) return `${operation.operationId} says nothing of ${type} for ${status}`;
      const base = isShared ? stated.$ref.slice(1) : `/paths/${escaped(path)}/${verb}/responses/${key}`;
      const validate = validatorAt(`${base}/content/${escaped(shown)}/schema`);
      // What is described of events is each of them.
      const values = type === 'text/event-stream' && typeof body === 'string' ? eventsIn(body) : [body];
      if (values.every((value) => validate(value))) return undefined;
      return `${operation.operationId} answers ${status} otherwise than it says: ${ajv.errorsText(validate.errors)}`;
    },
  };
}

/** The events of a stream that is all there, as a client sees them (WHATWG HTML, 9.2.6). */
function eventsIn(stream: string): Record<string, string>[] {
  return stream
    .split('\n\n')
    .map((block) => block.split('\n').filter((line) => line !== '' && !line.startsWith(':')))
    .filter((lines) => lines.length > 0)
    .map((lines) => Object.fromEntries(lines.map((line) => line.split(/: ?(.*)/s, 2) as [string, string])));
}

function patternOf(path: string): RegExp {
  const parts = path.split(/\{[^}]*\}/).map((literal) => literal.replaceAll(/[.*+?^$()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join('[^/]+')}$`);
}

function variables(path: string): number {
  return path.split('{').length;
}

/** As a step of a JSON pointer in a URI. */
function escaped(step: string): string {
  return encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'));
}
