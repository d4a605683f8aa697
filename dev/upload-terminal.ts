import { once } from 'node:events';
import type { ReadStream, WriteStream } from 'node:tty';

/** Shows on a terminal, or in a log, how far an upload has come. */
export interface Progress {
  /** Of so many bytes so many are there. */
  show(done: number, total: number): void;
  /** Says something that stays. */
  note(text: string): void;
  /** Ends the line that shows it, with how fast it was. */
  end(): void;
}

/** In a log there is a line that often at most. Milliseconds. */
const everyInLog = 3_000;
const barWidth = 20;

/** @param output whatever is said goes there */
export function openProgress(output: WriteStream): Progress {
  const { isTTY } = output;
  let begun: { at: number; with: number; done: number; told: number } | undefined;

  /** Bytes a second since it began. */
  const speed = () => ((begun!.done - begun!.with) / Math.max(performance.now() - begun!.at, 1)) * 1_000;

  return {
    show(done, total) {
      const now = performance.now();
      begun ??= { at: now, with: done, done, told: isTTY ? 0 : now };
      begun.done = done;
      if (!isTTY && now - begun.told < everyInLog) return;
      begun.told = now;
      const line = lineOf(done, total, speed());
      output.write(isTTY ? `\r${line.slice(0, output.columns - 1)}\x1b[K` : `${line}\n`);
    },
    note: (text) => void output.write(isTTY && begun !== undefined ? `\r\x1b[K${text}\n` : `${text}\n`),
    end() {
      if (begun === undefined) return;
      const seconds = ((performance.now() - begun.at) / 1_000).toFixed(1);
      const line = `Uploading: ${mebibytes(begun.done - begun.with)} MiB in ${seconds} s, ${megabytes(speed())} MB/s`;
      output.write(isTTY ? `\r${line}\x1b[K\n` : `${line}\n`);
      begun = undefined;
    },
  };
}

function lineOf(done: number, total: number, speed: number): string {
  const share = total === 0 ? 1 : done / total;
  const filled = Math.round(share * barWidth);
  return [
    'Uploading',
    `${Math.floor(share * 100)}%`.padStart(4),
    `[${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}]`,
    `${mebibytes(done)} of ${mebibytes(total)} MiB`,
    `${megabytes(speed)} MB/s`,
    `ETA ${speed > 0 ? clock((total - done) / speed) : '-:--'}`,
  ].join('  ');
}

function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0);
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

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
