import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { isNetwork } from './client-address.ts';

/** The settings of a process: for each environment variable its type, default and description. */
export type Settings = z.ZodRawShape;

/** The values of `Settings`, by the name of the environment variable. */
export type Config<S extends Settings> = z.output<z.ZodObject<S>>;

/** Environment variables are missing or wrong. The message names all of them and shows no values. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    // A single problem stays on one line, for readers of logs that work line by line.
    const named = problems.length === 1 ? ` ${problems[0]}` : problems.map((problem) => `\n  ${problem}`).join('');
    super(`The configuration is not usable:${named}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

const unitMilliseconds = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * A duration such as `500ms`, `30s`, `15m`, `24h` or `7d`; the value is in milliseconds. The limits are inclusive. An upper limit is
 * required, since timers and dates can't reach arbitrarily far.
 */
export function duration(limits: { min?: number; max: number }) {
  return z
    .string()
    .regex(/^\d+(ms|s|m|h|d)$/, 'must be a whole number with a unit: 500ms, 30s, 15m, 24h or 7d')
    .transform((text) => {
      const unit = text.replace(/^\d+/, '') as keyof typeof unitMilliseconds;
      return Number.parseInt(text, 10) * unitMilliseconds[unit];
    })
    .refine((value) => value >= (limits.min ?? 1), `must be at least ${durationText(limits.min ?? 1)}`)
    .refine((value) => value <= limits.max, `must be at most ${durationText(limits.max)}`)
    .register(values, { are: `${durationText(limits.min ?? 1)} to ${durationText(limits.max)}` });
}

/** Words for the values that a setting may have, for its documentation. */
const values = z.registry<{ are: string }>();

/** Ten years in milliseconds: the maximum of all retention settings. */
export const maxRetentionMs = 3_660 * unitMilliseconds.d;

/** Formats milliseconds as a setting is written: in the largest unit that gives a whole number. */
function durationText(milliseconds: number): string {
  if (milliseconds === 0) return '0s';
  const [unit, size] = Object.entries(unitMilliseconds).findLast(([, each]) => milliseconds % each === 0)!;
  return `${milliseconds / size}${unit}`;
}

/** A whole number within limits, both inclusive. */
export function integer(limits: { min: number; max: number }) {
  return z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= limits.min && value <= limits.max, `must be from ${limits.min} to ${limits.max}`)
    .register(values, { are: `${limits.min} to ${limits.max}` });
}

/** A number from 0 to 1. */
export function ratio() {
  return z
    .string()
    .regex(/^(0|1|[01]?\.\d+)$/, 'must be a number from 0 to 1, such as 0.01')
    .transform(Number)
    .refine((value) => value <= 1, 'must be from 0 to 1')
    .register(values, { are: '0 to 1' });
}

/** An http or https URL. */
export function httpUrl() {
  return z
    .string()
    .refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be http://host:port, or https')
    .register(values, { are: 'URL' });
}

/** A list of texts, separated by commas; at least one. */
export function list() {
  return z
    .string()
    .transform(itemsOf)
    .refine((items) => items.length > 0, 'must name at least one')
    .register(values, { are: 'list' });
}

function itemsOf(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** A list of IP addresses and networks in CIDR notation, separated by commas; at least one. */
export function networks() {
  return list().superRefine((items, context) => {
    for (const item of items.filter((each) => !isNetwork(each))) {
      context.addIssue({
        code: 'custom',
        message: `has ${JSON.stringify(item)}, which is neither an IP address nor a network (10.0.0.0/8)`,
      });
    }
  });
}

/** Text that is not empty. */
export function text() {
  return z.string().min(1);
}

/** One of several words. */
export function oneOf<const T extends readonly [string, ...string[]]>(words: T) {
  return z.enum(words);
}

/** `true` or `false`. */
export function flag() {
  return z.enum(['true', 'false']).transform((value) => value === 'true');
}

/** Finds the secret parts in the text of a setting, for settings that have some. */
const secretParts = z.registry<{ in: (text: string) => readonly string[] }>();

/** A password or a key. Well-known or easily guessed ones are refused unless LAPTOP_MODE is on. */
export function secret() {
  return text()
    .register(values, { are: 'secret' })
    .register(secretParts, { in: (value) => [value] });
}

/** A list of passwords or keys, separated by commas; at least one. */
export function secrets() {
  return list().register(values, { are: 'list of secrets' }).register(secretParts, { in: itemsOf });
}

/** The URL of a PostgreSQL. A password in it is checked as `secret` checks one. */
export function postgresUrl() {
  return z
    .string()
    .refine(
      (url) => /^postgres(ql)?:$/.test(URL.parse(url)?.protocol ?? ''),
      'must be postgres://role:password@host:port/database',
    )
    .register(values, { are: 'URL with a secret' })
    .register(secretParts, { in: passwordIn });
}

/** The setting of every process that allows weak secrets. */
export const laptopSettings = {
  LAPTOP_MODE: flag()
    .default(false)
    .describe('takes weak passwords, and users that everybody knows: only where nobody else can reach the process'),
};

/** A TCP port; 0 takes a free one. */
export function port() {
  return integer({ min: 0, max: 65_535 });
}

/** A setting, as its documentation shows it. */
export interface ShownSetting {
  /** Which values it may have, in a word or two. */
  values: string;
  /** Its default as it would be written; undefined where there is none. */
  standard: string | undefined;
  isRequired: boolean;
  description: string;
}

/**
 * A setting for its documentation.
 *
 * @throws Error if it has no description, or a default that can't be written as text
 */
export function shownSetting(name: string, schema: z.ZodType): ShownSetting {
  if (!schema.description) throw new Error(`${name} has no description`);
  return {
    values: valuesOf(schema),
    standard: standardOf(name, schema),
    isRequired: !schema.safeParse(undefined).success,
    description: schema.description,
  };
}

function valuesOf(schema: z.core.$ZodType): string {
  const are = values.get(schema)?.are;
  if (are !== undefined) return are;
  if (schema instanceof z.ZodEnum) return schema.options.join(', ');
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return valuesOf(schema.unwrap());
  if (schema instanceof z.ZodPipe) return valuesOf(schema.in);
  return 'text';
}

function standardOf(name: string, schema: z.ZodType): string | undefined {
  const standard: unknown = schema.safeParse(undefined).data;
  if (standard === undefined) return undefined;
  let inner: z.core.$ZodType = schema;
  while (inner instanceof z.ZodPipe) inner = inner.in;
  const declared: unknown = inner instanceof z.ZodDefault ? inner.def.defaultValue : standard;
  const texts = [String(declared), ...(Number.isInteger(declared) ? [durationText(declared as number)] : [])];
  const written = texts.find((each) => isDeepStrictEqual(schema.safeParse(each).data, standard));
  if (written === undefined) throw new Error(`${name} has a default that can't be written as text`);
  return written;
}

/**
 * Reads `settings` from the environment. An empty variable counts as not set. Weak secrets are refused unless LAPTOP_MODE=true.
 *
 * @throws ConfigError naming all bad variables at once
 */
export function loadConfig<S extends Settings>(settings: S, env: NodeJS.ProcessEnv = process.env): Config<S> {
  const given = Object.fromEntries(
    Object.keys(settings).map((name) => [name, env[name] === '' ? undefined : env[name]]),
  );
  const result = z.object(settings).safeParse(given);
  const problems = (result.error?.issues ?? []).map((issue) => {
    const name = String(issue.path[0]);
    return `${name} ${given[name] === undefined ? 'is required' : issue.message}`;
  });
  if (env['LAPTOP_MODE'] !== 'true') {
    for (const [name, schema] of Object.entries(settings)) {
      if (secretPartsOf(schema, given[name]).some(isWeak)) problems.push(`${name} ${weakness}`);
    }
  }
  if (problems.length === 0) return result.data as Config<S>;
  throw new ConfigError(problems);
}

/**
 * The environment of one service in a process that several may share: a variable prefixed with the service's name and two underscores
 * (`FILE__GRPC_PORT`) overrides the shared one (`GRPC_PORT`) for that service.
 */
export function environmentOf(name: string, env: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const prefix = ownVariable(name, '');
  const own = Object.entries(env).filter(([key]) => key.startsWith(prefix));
  return { ...env, ...Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), value])) };
}

/** The whole environment of this process. */
export const environment: NodeJS.ProcessEnv = process.env;

/** The name of a variable that applies to one service only. */
export function ownVariable(service: string, setting: string): string {
  return `${service.toUpperCase()}__${setting}`;
}

function secretPartsOf(schema: z.core.$ZodType, value: string | undefined): readonly string[] {
  let inner = schema;
  while (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault) inner = inner.unwrap();
  return value === undefined ? [] : (secretParts.get(inner)?.in(value) ?? []);
}

const minSecretLength = 12;
const fewestCharacters = 6;
/** The minimum length of a secret that has no letters. */
const minLengthWithoutLetters = 20;
/** Words that a secret must not consist of, apart from digits and punctuation: defaults of products, and common placeholders. */
const knownWords =
  /minio|postgres|chatall|admin|root|user|guest|kafka|pass(word|wd)?|secret|default|changeme|change|replace|example|test|letmein|qwerty|your|my|me|the|key|db/g;
const weakness = `must be a secret of ${minSecretLength} or more characters that nobody knows or guesses (or LAPTOP_MODE=true)`;

function isWeak(value: string): boolean {
  if (value.length < minSecretLength || new Set(value).size < fewestCharacters) return true;
  const letters = value.toLowerCase().replaceAll(/[^a-z]/g, '');
  if (letters === '') return value.length < minLengthWithoutLetters;
  return letters.replaceAll(knownWords, '') === '';
}

/** The passwords in a PostgreSQL URL: pg also takes one from the query parameters. */
function passwordIn(url: string): string[] {
  const parsed = URL.parse(url);
  const given = parsed?.searchParams.get('password') ?? parsed?.password;
  if (!given) return [];
  try {
    return [decodeURIComponent(given)];
  } catch {
    return [given];
  }
}
