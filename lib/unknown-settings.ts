import { settingNames, serviceNames } from './setting-names.ts';

/**
 * Variables of the environment that look like settings of the hub and are none, as lines for people: a setting with a typing error is
 * not missed otherwise. What others call theirs (Kubernetes, gRPC's own) is none of them.
 */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  return Object.keys(env).flatMap((name) => {
    const likely = likelyMeant(name);
    if (likely === undefined) return [];
    return [`There is no setting ${name}${likely === '' ? '' : `: is ${likely} meant?`}`];
  });
}

const known: ReadonlySet<string> = new Set(settingNames);
/** First words that more than one setting has, and hardly anything else. */
const firstWords = new Set(
  [...Map.groupBy(settingNames, (name) => name.split('_')[0]!)].flatMap(([word, some]) =>
    some.length > 1 && !/^(HTTP|LOG|MAIL|PORT|TOKEN|TLS)$/.test(word) ? [word] : [],
  ),
);
/** Variables of Kubernetes (addresses of its services), of gRPC's own libraries, of our tests and of npm. */
const others =
  /_SERVICE_(HOST|PORT)(_|$)|_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?$|^(GRPC_(VERBOSITY|TRACE|SSL|DEFAULT|NODE|EXPERIMENTAL|PROXY|DNS|ENABLE|POLL|XDS)|TEST_|npm_)/;

/** The setting that a name is likely to mean, '' if it only looks like one; undefined if it is one, or none of ours. */
function likelyMeant(name: string): string | undefined {
  const [, service, own = name] = /^([A-Z]+)__(\w+)$/.exec(name) ?? [];
  if (service !== undefined && known.has(own)) {
    if (serviceNames.includes(service.toLowerCase())) return undefined;
    const meant = serviceNames.find((each) => areAlike(each.toUpperCase(), service, 4));
    return meant === undefined ? '' : `${meant.toUpperCase()}__${own}`;
  }
  if (known.has(own) || (service === undefined && others.test(own))) return undefined;
  const meant = settingNames.find((each) => areAlike(each, own));
  if (meant !== undefined) return service === undefined ? meant : `${service}__${meant}`;
  const isOurs = firstWords.has(own.split('_')[0]!) && own.includes('_');
  return isOurs || (service !== undefined && serviceNames.includes(service.toLowerCase())) ? '' : undefined;
}

/** Whether one is the other with a few typing errors: in long names two, in short ones one. The shortest are like too many others. */
function areAlike(one: string, other: string, shortest = 6): boolean {
  const length = Math.min(one.length, other.length);
  const most = length >= 9 ? 2 : 1;
  return length >= shortest && Math.abs(one.length - other.length) <= most && distance(one, other, most) <= most;
}

/**
 * How many letters have to be replaced, added, left out or exchanged with the next one (optimal string alignment); Infinity as soon as it
 * is seen that they are more than `most`.
 */
function distance(one: string, other: string, most: number): number {
  let [before, last] = [[] as number[], Array.from({ length: other.length + 1 }, (_, index) => index)];
  for (let row = 1; row <= one.length; row += 1) {
    const next = [row];
    for (let column = 1; column <= other.length; column += 1) {
      const isSame = one[row - 1] === other[column - 1];
      let least = Math.min(last[column]! + 1, next[column - 1]! + 1, last[column - 1]! + (isSame ? 0 : 1));
      if (one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]) {
        least = Math.min(least, (before[column - 2] ?? Infinity) + 1);
      }
      next.push(least);
    }
    if (Math.min(...next) > most) return Infinity;
    [before, last] = [last, next];
  }
  return last.at(-1)!;
}
