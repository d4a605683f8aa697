import type { WriteStream } from 'node:tty';

/** Shows on a terminal, or in a log, how far something has come. */
export interface Progress {
  /** @param done how many of the bytes are there already */
  begin(what: string, total: number, done?: number): void;
  /** Counts bytes; negative ones are to be done again. */
  add(count: number): void;
  /** Says something that stays. */
  note(text: string): void;
  /** Ends what was begun, and leaves its last line. */
  end(): void;
}

const everyOnTerminal = 200;
const everyInLog = 3_000;
/** The speed shown is that of the last so many milliseconds. */
const speedWindow = 5_000;

interface Phase {
  what: string;
  total: number;
  done: number;
  begunWith: number;
  begunAt: number;
  timer: NodeJS.Timeout;
  /** How many bytes were there when. */
  samples: { at: number; done: number }[];
}

export function openProgress(output: WriteStream): Progress {
  const { isTTY } = output;
  let phase: Phase | undefined;

  function draw(): void {
    if (phase === undefined) return;
    const now = performance.now();
    phase.samples.push({ at: now, done: phase.done });
    while (phase.samples.length > 2 && phase.samples[1]!.at < now - speedWindow) phase.samples.shift();
    const line = lineOf(phase, speedOf(phase.samples));
    if (isTTY) output.write(`\r${line.slice(0, output.columns - 1)}\x1b[K`);
    else output.write(`${line}\n`);
  }

  return {
    begin(what, total, done = 0) {
      const now = performance.now();
      const timer = setInterval(draw, isTTY ? everyOnTerminal : everyInLog).unref();
      phase = { what, total, done, begunWith: done, begunAt: now, timer, samples: [{ at: now, done }] };
      if (isTTY) draw();
    },
    add(count) {
      if (phase !== undefined) phase.done += count;
    },
    note(text) {
      output.write(isTTY && phase !== undefined ? `\r\x1b[K${text}\n` : `${text}\n`);
      if (isTTY) draw();
    },
    end() {
      if (phase === undefined) return;
      clearInterval(phase.timer);
      const { what, done, begunWith, begunAt } = phase;
      phase = undefined;
      const seconds = (performance.now() - begunAt) / 1_000;
      const speed = (done - begunWith) / Math.max(seconds, 0.001);
      const line = `${what}: ${mebibytes(done - begunWith)} MiB in ${seconds.toFixed(1)} s, ${megabytes(speed)} MB/s`;
      output.write(isTTY ? `\r${line}\x1b[K\n` : `${line}\n`);
    },
  };
}

/** Bytes a second. */
function speedOf(samples: Phase['samples']): number {
  const [first, last] = [samples[0]!, samples.at(-1)!];
  return last.at === first.at ? 0 : Math.max(0, ((last.done - first.done) / (last.at - first.at)) * 1_000);
}

const barWidth = 20;

function lineOf({ what, total, done }: Phase, speed: number): string {
  const share = total === 0 ? 1 : done / total;
  const filled = Math.round(share * barWidth);
  const left = speed > 0 ? clock((total - done) / speed) : '-:--';
  return [
    what,
    `${Math.floor(share * 100)}%`.padStart(4),
    `[${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}]`,
    `${mebibytes(done)} of ${mebibytes(total)} MiB`,
    `${megabytes(speed)} MB/s`,
    `ETA ${left}`,
  ].join('  ');
}

function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60)];
  const end = String(whole % 60).padStart(2, '0');
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${end}` : `${minutes}:${end}`;
}

const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0);
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
