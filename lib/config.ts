import { z } from 'zod';

/** The settings of a process: for each environment variable its type, default and description. */
export type Settings = z.ZodRawShape;

/** The values of `Settings`, by the name of the environment variable. */
export type Config<S extends Settings> = z.output<z.ZodObject<S>>;

/** Environment variables are missing or wrong. The message names every one of them and shows no value. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(`The configuration is not usable:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
  }
}

const unitMilliseconds = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A length of time as `500ms`, `30s`, `15m`, `24h` or `7d`; the value is in milliseconds. */
export function duration(limits: { min?: number; max?: number } = {}) {
  return z
    .string()
    .regex(/^\d+(ms|s|m|h|d)$/, 'must be a whole number with a unit: 500ms, 30s, 15m, 24h or 7d')
    .transform((text) => {
      const unit = text.replace(/^\d+/, '') as keyof typeof unitMilliseconds;
      return Number.parseInt(text, 10) * unitMilliseconds[unit];
    })
    .refine((value) => value >= (limits.min ?? 1), `must be at least ${limits.min ?? 1}ms`)
    .refine((value) => value <= (limits.max ?? Number.MAX_SAFE_INTEGER), `must be at most ${limits.max}ms`);
}

/** A whole number within limits, both inclusive. */
export function integer(limits: { min: number; max: number }) {
  return z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= limits.min && value <= limits.max, `must be from ${limits.min} to ${limits.max}`);
}

/** A list with commas between its items; at least one. */
export function list() {
  return z
    .string()
    .transform((text) =>
      text
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== ''),
    )
    .refine((items) => items.length > 0, 'must name at least one');
}

/** Text that is not empty. */
export function text() {
  return z.string().min(1);
}

/** A TCP port; 0 takes a free one. */
export function port() {
  return integer({ min: 0, max: 65_535 });
}

/**
 * Reads `settings` from the environment. An empty variable counts as not set.
 *
 * @throws ConfigError naming all bad variables at once
 */
export function loadConfig<S extends Settings>(settings: S, env: NodeJS.ProcessEnv = process.env): Config<S> {
  const given = Object.fromEntries(
    Object.keys(settings).map((name) => [name, env[name] === '' ? undefined : env[name]]),
  );
  const result = z.object(settings).safeParse(given);
  if (result.success) return result.data;
  throw new ConfigError(
    result.error.issues.map((issue) => {
      const name = String(issue.path[0]);
      return `${name} ${given[name] === undefined ? 'is required' : issue.message}`;
    }),
  );
}
