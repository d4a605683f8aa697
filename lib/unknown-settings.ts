import { settingNames, serviceNames } from './setting-names.ts';

/**
 * Warnings about environment variables that look like settings of the hub but are none: a misspelled setting would be ignored silently.
 * Variables of other software (Kubernetes, gRPC libraries) are left out.
 */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  return Object.keys(env).flatMap((name) => {
    const likely = likelyMeant(name);
    if (likely === undefined) return [];
    return [`There is no setting ${name}${likely === '' ? '' : `: is ${likely} meant?`}`];
  });
}

const known: ReadonlySet<string> = new Set(settingNames);
/** First words that several settings share, and hardly any other software uses. */
const firstWords = new Set(
  [...Map.groupBy(settingNames, (name) => name.split('_')[0]!)].flatMap(([word, some]) =>
    some.length > 1 && !/^(HTTP|LOG|MAIL|PORT|TOKEN|TLS)$/.test(word) ? [word] : [],
  ),
);
/** Variables of Kubernetes (service addresses), gRPC libraries, our tests and npm. */
const others =
  /_SERVICE_(HOST|PORT)(_|$)|_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?$|^(GRPC_(VERBOSITY|TRACE|SSL|DEFAULT|NODE|EXPERIMENTAL|PROXY|DNS|ENABLE|POLL|XDS)|TEST_|npm_)/;

/** The setting that a name probably means; '' if it only looks like one of ours; undefined if it is a setting, or not ours. */
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

/** Whether one name is the other with typing errors: two in long names, one in short ones. Very short names resemble too many others. */
function areAlike(one: string, other: string, minLength = 6): boolean {
  const length = Math.min(one.length, other.length);
  const maxDistance = length >= 9 ? 2 : 1;
  return (
    length >= minLength &&
    Math.abs(one.length - other.length) <= maxDistance &&
    distance(one, other, maxDistance) <= maxDistance
  );
}

/**
 * The number of letters to replace, insert, delete or transpose (optimal string alignment distance); Infinity if it exceeds `maxDistance`.
 */
function distance(one: string, other: string, maxDistance: number): number {
  let [before, last] = [[] as number[], Array.from({ length: other.length + 1 }, (_, index) => index)];
  for (let row = 1; row <= one.length; row += 1) {
    const next = [row];
    for (let column = 1; column <= other.length; column += 1) {
      const isSame = one[row - 1] === other[column - 1];
      let best = Math.min(last[column]! + 1, next[column - 1]! + 1, last[column - 1]! + (isSame ? 0 : 1));
      if (one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]) {
        best = Math.min(best, (before[column - 2] ?? Infinity) + 1);
      }
      next.push(best);
    }
    if (Math.min(...next) > maxDistance) return Infinity;
    [before, last] = [last, next];
  }
  return last.at(-1)!;
}
