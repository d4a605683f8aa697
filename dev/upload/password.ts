import { once } from 'node:events';
import type { ReadStream, WriteStream } from 'node:tty';

/**
 * Asks for a password at the terminal, without showing it.
 *
 * @returns undefined if the question was answered with Ctrl-C or Ctrl-D
 */
export async function askPassword(
  question: string,
  input: ReadStream,
  output: WriteStream,
): Promise<string | undefined> {
  output.write(question);
  input.setRawMode(true);
  input.setEncoding('utf8');
  input.resume();
  try {
    let typed: string[] = [];
    for (;;) {
      const [keys] = (await once(input, 'data')) as [string];
      // What is pasted comes at once.
      for (const key of keys) {
        if (key === '\r' || key === '\n') return typed.join('');
        if (key === '\x03' || key === '\x04') return undefined;
        if (key === '\x7f' || key === '\b') typed.pop();
        else if (key === '\x15') typed = [];
        else typed.push(key);
      }
    }
  } finally {
    input.setRawMode(false);
    input.pause();
    output.write('\n');
  }
}
