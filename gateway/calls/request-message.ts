import type { IncomingMessage, ServerResponse } from 'node:http';
import { Problem } from '../http/problem.ts';
import { readBody, type BodyLimits } from '../http/request-body.ts';
import type { CallOptions, Outgoing } from './call.ts';

/**
 * Makes the request message of what a request has in its path, query, headers and body.
 *
 * @throws Problem
 */
export async function readMessage(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: CallOptions & BodyLimits,
  outgoing: Outgoing,
): Promise<Buffer> {
  const { binding, dialect } = options;
  const { headers } = request;
  if (binding.body === 'none') {
    if (!dialect.bodies.isQuery(request)) return outgoing.message({ values, query, headers });
    const form = (await readBody(request, response, options)).toString();
    return outgoing.message({ values, query: [form, query].filter((part) => part !== '').join('&'), headers });
  }
  dialect.bodies.check(request);
  const body = await readBody(request, response, options);
  let json: { value: unknown } | undefined;
  try {
    json = dialect.bodies.json(body, headers['content-type'], binding);
  } catch (error) {
    if (!binding.namesCaller || !(error instanceof Problem) || error.code !== 'MALFORMED_JSON') throw error;
    outgoing.unreadable(error);
  }
  return outgoing.message({ values, query, json, headers });
}
