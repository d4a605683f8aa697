import type { IncomingMessage, ServerResponse } from 'node:http';
import { readJson, readQuery, type BodyLimits } from './body.ts';
import type { CallOptions, Outgoing } from './call.ts';
import { Problem } from '../http/problem.ts';

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
  const json = await readJson(request, response, options).catch((error: unknown) => {
    if (!options.binding.namesCaller || !(error instanceof Problem) || error.code !== 'MALFORMED_JSON') throw error;
    outgoing.unreadable(error);
    return undefined;
  });
  const { headers } = request;
  return outgoing.message({ values, query: await readQuery(request, response, query, options), json, headers });
}
