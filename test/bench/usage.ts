import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What a process has used of the machine. */
export interface Usage {
  /** Seconds of CPU since its start, in user and kernel. */
  cpu: number;
  /** Bytes of memory that are resident now. */
  memory: number;
}

interface Process {
  pid: number;
  parent: number;
  /** Seconds of its own. */
  cpu: number;
  /** Seconds of its children that have ended. */
  endedCpu: number;
  memory: number;
}

/**
 * What processes have used so far, by name. One in `trees` is meant with all processes below it, ended ones included, and
 * the memory that they share counts once.
 *
 * @throws Error if one of them is gone
 */
export async function usageOf(
  pids: Readonly<Record<string, number>>,
  trees: readonly string[],
): Promise<Record<string, Usage>> {
  const all = process.platform === 'linux' ? await readProc() : await readPs();
  const found: Record<string, Usage> = {};
  for (const [name, pid] of Object.entries(pids)) {
    const own = all.get(pid);
    if (own === undefined) throw new Error(`${name} (process ${pid}) is gone`);
    found[name] = trees.includes(name) ? await usageOfTree(own, all) : own;
  }
  return Object.fromEntries(Object.entries(found).map(([name, { cpu, memory }]) => [name, { cpu, memory }]));
}

async function usageOfTree(root: Process, all: ReadonlyMap<number, Process>): Promise<Usage> {
  const tree = [root];
  for (const each of tree) tree.push(...[...all.values()].filter(({ parent }) => parent === each.pid));
  const memory = await Promise.all(tree.map(async (each) => (await proportionalMemory(each.pid)) ?? each.memory));
  return {
    cpu: tree.reduce((sum, each) => sum + each.cpu + each.endedCpu, 0),
    memory: memory.reduce((sum, each) => sum + each, 0),
  };
}

/** The memory of a process, with its share of what it has in common with others; undefined where that can't be told. */
async function proportionalMemory(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(text)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

/** Linux counts in hundredths of a second wherever Node runs (USER_HZ). */
const ticksPerSecond = 100;

async function readProc(): Promise<Map<number, Process>> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid): Promise<[number, Process] | undefined> => {
      try {
        const [stat, status] = await Promise.all([
          readFile(`/proc/${pid}/stat`, 'utf8'),
          readFile(`/proc/${pid}/status`, 'utf8'),
        ]);
        // The name in the second field may contain anything; state is the third (proc(5)).
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        const field = (number: number) => Number(fields[number - 3]);
        return [
          pid,
          {
            pid,
            parent: field(4),
            cpu: (field(14) + field(15)) / ticksPerSecond,
            endedCpu: (field(16) + field(17)) / ticksPerSecond,
            memory: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024,
          },
        ];
      } catch {
        // It has ended meanwhile.
        return undefined;
      }
    }),
  );
  return new Map(found.filter((each) => each !== undefined));
}

async function readPs(): Promise<Map<number, Process>> {
  const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=,time=,rss='], { timeout: 10_000 });
  return new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => {
        const [pid, parent, time, kilobytes] = line.trim().split(/\s+/) as [string, string, string, string];
        const own = { pid: Number(pid), parent: Number(parent), cpu: secondsOf(time), endedCpu: 0 };
        return [own.pid, { ...own, memory: Number(kilobytes) * 1024 }];
      }),
  );
}

/** Of `[[days-]hours:]minutes:seconds[.fraction]`. */
function secondsOf(time: string): number {
  const [days, clock] = time.includes('-') ? time.split('-') : ['0', time];
  const seconds = clock!.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
  return Number(days) * 86_400 + seconds;
}
