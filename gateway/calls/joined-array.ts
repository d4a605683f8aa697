import type { IncomingMessage, ServerResponse } from 'node:http';
import { Outgoing } from './call.ts';
import { answerLookup, isLookup } from '../http/conditional-get.ts';
import { readMessage } from './request-message.ts';
import { passOn } from './server-stream.ts';
import type { StreamOptions } from './stream.ts';
import { answerBody } from '../http/send-answer.ts';

/**
 * Answers a request with one array of what is in the arrays of all messages of an RPC (`joined_array` of chat4all.options.v1), of which
 * no more than one message is held. One that fits into a message is answered like any other lookup.
 *
 * @throws Problem before anything was answered, or to break off what was begun
 */
export async function answerJoinedArray(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: StreamOptions,
): Promise<void> {
  const { binding, dialect, enter } = options;
  const outgoing = new Outgoing(request, response, options);
  const message = await readMessage(request, response, values, query, options, outgoing);
  await enter(request, response);
  if (response.destroyed) return;
  const type = { 'Content-Type': 'application/json' };

  await passOn(request, response, options, outgoing, message, (passage) => {
    /** The items of the last message, without the brackets, if they were not written yet. */
    let waiting: string | undefined;
    let hasBegun = false;
    const flush = () => {
      if (waiting === undefined) return;
      if (!hasBegun) passage.begin(binding.successStatus, { ...passage.headers(), ...type });
      passage.write(`${hasBegun ? ',' : '['}${waiting}`);
      hasBegun = true;
      waiting = undefined;
    };
    return {
      message(encoded) {
        const items = dialect.transcoder.response(binding, encoded).slice(1, -1);
        if (items === '') return;
        flush();
        waiting = items;
      },
      end() {
        if (hasBegun) {
          flush();
          passage.write(']');
          return undefined;
        }
        const whole = `[${waiting ?? ''}]`;
        const headers = { ...passage.headers(), ...type };
        if (binding.successStatus === 200 && isLookup(response)) return answerLookup(response, whole, headers);
        return answerBody(response, binding.successStatus, whole, headers);
      },
    };
  });
}
