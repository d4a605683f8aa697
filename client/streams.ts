import { connected } from './errors.ts';

/** Responses that arrive piece by piece. */

/** The lines of a response, also an unterminated last one. */
export async function* linesOf(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let unfinished = '';
  for await (const piece of pieces) {
    const lines = (unfinished + decoder.decode(piece, { stream: true })).split('\n');
    unfinished = lines.pop()!;
    yield* lines;
  }
  unfinished += decoder.decode();
  if (unfinished !== '') yield unfinished;
}

/** A server-sent event. */
export interface SentEvent {
  type: string;
  id: string;
  data: string;
}

/** The server-sent events in these lines (WHATWG HTML, 9.2). */
export async function* eventsOf(lines: AsyncIterable<string>): AsyncGenerator<SentEvent> {
  let [type, id, data] = ['', '', ''];
  for await (const line of lines) {
    // A comment has no name.
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*?))?\r?$/s.exec(line)!;
    if (name === 'event') type = value;
    else if (name === 'id') id = value;
    else if (name === 'data') data += `${value}\n`;
    if (line !== '' && line !== '\r') continue;
    if (data !== '') yield { type, id, data };
    [type, data] = ['', ''];
  }
}

/** The pieces of a body, which not every browser can iterate over. Leaving the loop closes the connection. */
export async function* piecesOf({ body }: Response, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await connected(reader.read(), signal);
      if (done) return;
      yield value as Uint8Array<ArrayBuffer>;
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}
