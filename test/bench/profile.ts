import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** A CPU profile as V8 writes it; times in microseconds. */
interface Profile {
  nodes: {
    id: number;
    callFrame: { functionName: string; url: string; lineNumber: number };
    children?: number[];
  }[];
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

/** From when to when, in microseconds of the clock that `process.hrtime` reads. */
export interface Window {
  from: number;
  to: number;
}

const shown = 12;
const idle = new Set(['(idle)', '(root)']);

/**
 * Prints where the CPU time of each process went, by package and by function: its milliseconds for `what`, in the
 * proportions of the profile. That samples by the clock, so on a busy machine it shows where a process was made to wait, too.
 *
 * @param cpuSeconds by process, as measured
 * @param what it was used for
 */
export async function printProfiles(
  folder: string,
  pids: Readonly<Record<string, number>>,
  window: Window,
  cpuSeconds: Readonly<Record<string, number>>,
  what: string,
): Promise<void> {
  const files = await readdir(folder);
  for (const [name, pid] of Object.entries(pids)) {
    // CPU.<date>.<time>.<process>.<thread>.<sequence>.cpuprofile
    const file = files.find((each) => each.split('.')[3] === String(pid) && each.split('.')[4] === '0');
    if (file === undefined) continue;
    const profile = JSON.parse(await readFile(path.join(folder, file), 'utf8')) as Profile;
    const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
    const parents = new Map(
      profile.nodes.flatMap((node) => (node.children ?? []).map((child) => [child, node] as const)),
    );
    const byFunction = new Map<string, number>();
    const byPackage = new Map<string, number>();
    let all = 0;
    let now = profile.startTime;
    profile.samples.forEach((id, index) => {
      const delta = profile.timeDeltas[index]!;
      now += delta;
      let node = nodes.get(id)!;
      if (now < window.from || now > window.to || idle.has(node.callFrame.functionName)) return;
      all += delta;
      const { functionName, url, lineNumber } = node.callFrame;
      const at = url === '' ? '' : ` ${placeOf(url)}:${lineNumber + 1}`;
      add(byFunction, `${functionName || '(anonymous)'}${at}`, delta);
      // Node's own work belongs to whoever asked for it.
      while (isNode(node.callFrame.url) && parents.has(node.id)) node = parents.get(node.id)!;
      add(byPackage, node.callFrame.url === '' ? functionName : ownerOf(node.callFrame.url), delta);
    });
    const measured = (cpuSeconds[name] ?? 0) * 1_000;
    const share = (part: number) => ((part / all) * measured).toFixed(0).padStart(6);
    console.log(`\n${name}: ${measured.toFixed(0)} ms of CPU for ${what}`);
    for (const [title, sums] of [
      ['with what Node does for it', byPackage],
      ['by itself', byFunction],
    ] as const) {
      console.log(`  ${title}`);
      for (const [owner, part] of [...sums].toSorted(([, a], [, b]) => b - a).slice(0, shown)) {
        console.log(`  ${share(part)}  ${owner}`);
      }
    }
  }
}

function add(sums: Map<string, number>, key: string, value: number): void {
  sums.set(key, (sums.get(key) ?? 0) + value);
}

function isNode(url: string): boolean {
  return url === '' || url.startsWith('node:');
}

/** The package that a file is in, or our own folder. */
function ownerOf(url: string): string {
  const inPackage = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url);
  if (inPackage !== null) return inPackage[1]!;
  return isNode(url) ? 'node' : path.dirname(placeOf(url));
}

function placeOf(url: string): string {
  const root = path.resolve(import.meta.dirname, '../..');
  return url
    .replace(/^file:\/\//, '')
    .replace(`${root}/`, '')
    .replace(/.*node_modules\//, '');
}
