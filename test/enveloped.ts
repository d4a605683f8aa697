import assert from 'node:assert/strict';
import { conformityOf } from './rest.ts';

/** What stands beside the data, or beside the error. */
export interface Meta {
  request_id: string;
  pagination?: { offset: number; limit: number; total: number };
}

/** Why a call was refused. */
export interface EnvelopedError {
  code: string;
  message: string;
  details: { field: string; message: string; rule: string }[];
}

/** An answer below /api/v1. */
export interface Enveloped<Data = unknown> {
  status: number;
  headers: Headers;
  data: Data;
  error: EnvelopedError | null;
  meta: Meta;
}

export interface EnvelopedCall {
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is, in place of `json`. */
  body?: string;
  headers?: Record<string, string>;
}

/** What a caller shows. */
export interface Shown {
  token?: string;
  apiKey?: string;
}

/**
 * What answers in envelopes, as somebody calls it. Each answer is checked for what the contract says of all of them, and for what the
 * gateway's own OpenAPI document says of it.
 */
export interface EnvelopedRest {
  /** Whatever comes back. Throws only if nothing does, or if it breaks the contract. */
  call<Data = unknown>(method: string, path: string, call?: EnvelopedCall): Promise<Enveloped<Data>>;
  /** The data of a success with this status. */
  ok<Data = unknown>(status: number, method: string, path: string, json?: unknown): Promise<Data>;
  /** The error of a refusal with this status. */
  refused(status: number, method: string, path: string, json?: unknown): Promise<EnvelopedError & { headers: Headers }>;
}

const prefix = '/api/v1';
const timeout = 30_000;

/** @param url of the gateway, without a slash at the end; paths are told without /api/v1 */
export function openEnveloped(url: string, shown: Shown = {}): EnvelopedRest {
  async function call<Data>(method: string, path: string, given: EnvelopedCall = {}): Promise<Enveloped<Data>> {
    const headers = new Headers(given.headers);
    if (shown.token !== undefined && !headers.has('authorization'))
      headers.set('authorization', `Bearer ${shown.token}`);
    if (shown.apiKey !== undefined) headers.set('x-api-key', shown.apiKey);
    const body = given.json === undefined ? given.body : JSON.stringify(given.json);
    if (body !== undefined && !headers.has('content-type')) headers.set('content-type', 'application/json');
    const target = `${prefix}${path}`;
    const response = await fetch(`${url}${target}`, {
      method,
      headers,
      signal: AbortSignal.timeout(timeout),
      ...(body !== undefined && { body }),
    });
    const text = await response.text();
    const what = `${method} ${target}: ${response.status} ${text.slice(0, 1_000)}`;
    const answer = { status: response.status, headers: response.headers };
    if (response.status === 204) {
      assert.equal(text, '', what);
      return { ...answer, data: undefined as Data, error: null, meta: { request_id: requestIdOf(response) } };
    }
    assert.equal(response.headers.get('content-type'), 'application/json', what);
    const envelope = JSON.parse(text) as Pick<Enveloped<Data>, 'data' | 'error' | 'meta'>;
    assert.deepEqual(Object.keys(envelope), ['data', 'error', 'meta'], what);
    assert.equal(envelope.meta.request_id, requestIdOf(response), what);
    assert.ok(!/:null/.test(text.replace(/"(data|error)":null/, '')), `nothing in it is null: ${what}`);
    if (response.ok) {
      assert.equal(envelope.error, null, what);
      assert.ok(envelope.data !== null && typeof envelope.data === 'object', what);
    } else {
      assert.equal(envelope.data, null, what);
      const { code, message, details } = envelope.error!;
      assert.match(code, /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/, what);
      assert.ok(message !== '' && Array.isArray(details), what);
      for (const each of details) {
        assert.deepEqual(Object.keys(each), ['field', 'message', 'rule'], what);
        assert.ok(each.field !== '' && each.message !== '' && each.rule !== '', what);
      }
    }
    if (response.status === 401) assert.ok(response.headers.get('www-authenticate'), `WWW-Authenticate of ${what}`);
    if (response.status === 429 || response.status === 503) {
      assert.ok(Number(response.headers.get('retry-after')) >= 1, `Retry-After of ${what}`);
    }
    assert.notEqual(response.status, 500, what);
    const fault = (await conformityOf(url))?.fault(method, target, { ...answer, body: envelope });
    assert.equal(fault, undefined, what);
    return { ...answer, ...envelope };
  }

  return {
    call,
    async ok<Data>(status: number, method: string, path: string, json?: unknown): Promise<Data> {
      const answer = await call<Data>(method, path, json === undefined ? {} : { json });
      assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.error ?? answer.data)}`);
      return answer.data;
    },
    async refused(status, method, path, json) {
      const answer = await call(method, path, json === undefined ? {} : { json });
      assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.error ?? answer.data)}`);
      return { ...answer.error!, headers: answer.headers };
    },
  };
}

function requestIdOf(response: Response): string {
  return response.headers.get('x-request-id') ?? '';
}
