import test, { type ExecutionContext } from 'ava';
import { z } from 'zod';
import {
  ConfigError,
  duration,
  flag,
  integer,
  list,
  loadConfig,
  maxRetentionMs,
  networks,
  port,
  postgresUrl,
  secret,
  secrets,
  shownSetting,
  text,
  type Settings,
} from './config.ts';

/** What a ConfigError lists. */
function problems(t: ExecutionContext, settings: Settings, env: NodeJS.ProcessEnv): string[] {
  const error = t.throws(() => loadConfig(settings, env), { instanceOf: ConfigError });
  const { message, problems: found } = error as ConfigError;
  const [first, ...rest] = message.split('\n').map((line) => line.trim());
  // One is told in one line, several in one each.
  if (found.length === 1) t.deepEqual([first, ...rest], [`The configuration is not usable: ${found[0]}`]);
  else t.deepEqual([first, ...rest], ['The configuration is not usable:', ...found]);
  return [...found];
}

/** What each text of a variable is read as; undefined for one that is refused. */
function readings(schema: z.ZodType, texts: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(texts.map((given) => [given, schema.safeParse(given).data]));
}

test('loadConfig: values have their types, and what is not set has its default', (t) => {
  const settings = {
    WAIT: duration({ max: 600_000 }).default(30_000),
    POOL: integer({ min: 1, max: 50 }).default(10),
    BROKERS: list().optional(),
    NAME: text(),
    PORT: port(),
  };
  const config = loadConfig(settings, { WAIT: '5m', NAME: 'hub', PORT: '0', OTHER: 'ignored' });
  t.deepEqual(config, { WAIT: 300_000, POOL: 10, BROKERS: undefined, NAME: 'hub', PORT: 0 });
});

test('loadConfig: names all bad variables at once', (t) => {
  const settings = {
    WAIT: duration({ max: 60_000 }),
    POOL: integer({ min: 1, max: 50 }),
    BROKERS: list(),
    FORMAT: z.enum(['text', 'json']),
    NAME: text(),
    FINE: text(),
  };
  const env = { WAIT: '2h', POOL: '51', BROKERS: ' , ', FORMAT: 'xml', FINE: 'fine' };
  t.deepEqual(problems(t, settings, env), [
    'WAIT must be at most 1m',
    'POOL must be from 1 to 50',
    'BROKERS must name at least one',
    'FORMAT Invalid option: expected one of "text"|"json"',
    'NAME is required',
  ]);
});

test('networks: addresses and CIDR notation, and each entry that is neither is named', (t) => {
  const settings = { TRUSTED_PROXIES: networks() };
  const read = (value: string) => loadConfig(settings, { TRUSTED_PROXIES: value }).TRUSTED_PROXIES;
  t.deepEqual(read('127.0.0.1, ::1,10.0.0.0/8'), ['127.0.0.1', '::1', '10.0.0.0/8']);
  t.deepEqual(problems(t, settings, { TRUSTED_PROXIES: '10.0.0.0/8,gateway,::1/129' }), [
    'TRUSTED_PROXIES has "gateway", which is neither an IP address nor a network (10.0.0.0/8)',
    'TRUSTED_PROXIES has "::1/129", which is neither an IP address nor a network (10.0.0.0/8)',
  ]);
  t.deepEqual(problems(t, settings, { TRUSTED_PROXIES: ',' }), ['TRUSTED_PROXIES must name at least one']);
});

test('loadConfig: an error shows no value, since it may be a secret', (t) => {
  const secret = 'hunter2-hunter2';
  const settings = {
    WAIT: duration({ max: 60_000 }),
    POOL: integer({ min: 1, max: 50 }),
    FORMAT: z.enum(['text', 'json']),
    URL: z.url(),
    KEY: z.string().length(3),
  };
  const env = Object.fromEntries(Object.keys(settings).map((name) => [name, secret]));
  const error = t.throws(() => loadConfig(settings, env), { instanceOf: ConfigError }) as ConfigError;
  for (const name of Object.keys(settings)) t.regex(error.message, new RegExp(`^  ${name} `, 'm'));
  t.notRegex(error.message, /hunter2/);
});

test('loadConfig: an empty variable counts as not set', (t) => {
  const settings = { POOL: integer({ min: 1, max: 50 }).default(10), BROKERS: list().optional(), NAME: text() };
  const config = loadConfig(settings, { POOL: '', BROKERS: '', NAME: 'hub' });
  t.deepEqual(config, { POOL: 10, BROKERS: undefined, NAME: 'hub' });
  t.deepEqual(problems(t, settings, { NAME: '' }), ['NAME is required']);
});

test('duration: a whole number with a unit, in milliseconds', (t) => {
  t.deepEqual(readings(duration({ max: maxRetentionMs }), ['1ms', '500ms', '30s', '15m', '24h', '7d']), {
    '1ms': 1,
    '500ms': 500,
    '30s': 30_000,
    '15m': 900_000,
    '24h': 86_400_000,
    '7d': 604_800_000,
  });
  for (const wrong of ['30', 's', '1.5s', '-1s', '30 s', '1S', '1m30s', '5w', '0s']) {
    t.false(duration({ max: 60_000 }).safeParse(wrong).success, wrong);
  }
});

test('duration: both limits are allowed, what is beyond them is not', (t) => {
  const limited = duration({ min: 1_000, max: 60_000 });
  t.deepEqual(readings(limited, ['999ms', '1s', '1m', '60001ms']), {
    '999ms': undefined,
    '1s': 1_000,
    '1m': 60_000,
    '60001ms': undefined,
  });
});

test('integer: digits only, from the least to the most', (t) => {
  const wrong = ['-1', '+5', '1.0', '1e1', '0x10', ' 5', '5 ', 'five', '101', '99999999999999999999'];
  const right = { '0': 0, '007': 7, '100': 100 };
  const read = readings(integer({ min: 0, max: 100 }), [...Object.keys(right), ...wrong]);
  t.deepEqual(read, { ...right, ...Object.fromEntries(wrong.map((given) => [given, undefined])) });
});

test('port: 0 to 65535', (t) => {
  t.deepEqual(readings(port(), ['0', '65535', '65536']), { '0': 0, '65535': 65_535, '65536': undefined });
});

test('list: items between commas, without the blanks around them, at least one', (t) => {
  t.deepEqual(readings(list(), ['a:1', ' a:1 , b:2,', ',', ' ']), {
    'a:1': ['a:1'],
    ' a:1 , b:2,': ['a:1', 'b:2'],
    ',': undefined,
    ' ': undefined,
  });
});

const wellKnown = 'password password123 minioadmin minioadmin123 postgres changeme secret chat4all chat4all-password'
  .concat(' admin-admin-admin Your_Secret_Key_1 aaaaaaaaaaaaaaaa 123456789012 k3Jx')
  .split(' ');
const strong = ['uK9_x2LmQ-7f', 'correct horse battery staple', '8f14e45fceea167a5a36dedd4bea2543'];

test('secret: what everybody knows or guesses is refused, unless somebody says that it is a laptop', (t) => {
  const settings = { KEY: secret(), OTHER: secret().optional().describe('another') };
  for (const weak of wellKnown) {
    const [problem, ...rest] = problems(t, settings, { KEY: weak, OTHER: weak });
    t.regex(problem ?? '', /^KEY must be a secret/, weak);
    t.regex(rest.join(), /^OTHER must be a secret/, weak);
    t.false(rest.join().includes(`"${weak}"`));
    t.is(loadConfig(settings, { KEY: weak, LAPTOP_MODE: 'true' }).KEY, weak);
    for (const mode of ['', 'false', 'TRUE', '1', 'yes']) problems(t, settings, { KEY: weak, LAPTOP_MODE: mode });
  }
  for (const good of strong) t.is(loadConfig(settings, { KEY: good }).KEY, good);
  t.deepEqual(problems(t, settings, { KEY: '', LAPTOP_MODE: 'true' }), ['KEY is required']);
});

test('secrets: each of a list is one', (t) => {
  const settings = { KEYS: secrets().describe('keys') };
  const good = strong.filter((each) => !each.includes(',')).slice(0, 2);
  t.deepEqual(loadConfig(settings, { KEYS: good.join(' , ') }).KEYS, good);
  const [problem] = problems(t, settings, { KEYS: [...good, 'changeme'].join() });
  t.regex(problem ?? '', /^KEYS must be a secret/);
  t.deepEqual(problems(t, settings, { KEYS: ' , ' }), ['KEYS must name at least one']);
  t.is(loadConfig(settings, { KEYS: 'changeme', LAPTOP_MODE: 'true' }).KEYS.length, 1);
});

test('postgresUrl: its password is a secret, where it has one', (t) => {
  const settings = { URL: postgresUrl().describe('a database') };
  const url = (password: string) =>
    `postgres://chat4all_auth:${encodeURIComponent(password)}@db:5432/hub?sslmode=verify-full`;
  for (const weak of wellKnown) {
    t.regex(problems(t, settings, { URL: url(weak) }).join(), /^URL must be a secret/, weak);
    t.is(loadConfig(settings, { URL: url(weak), LAPTOP_MODE: 'true' }).URL, url(weak));
  }
  problems(t, settings, { URL: 'postgres://db/hub?user=chat4all_auth&password=changeme' });
  for (const good of strong) t.is(loadConfig(settings, { URL: url(good) }).URL, url(good));
  // Who he is may be proved by a certificate, or by the socket.
  for (const none of ['postgres://db/hub', 'postgresql://chat4all_auth@db:5432/hub']) {
    t.is(loadConfig(settings, { URL: none }).URL, none);
  }
  for (const wrong of ['http://db/hub', 'db:5432', 'nonsense', 'postgres://a:b@[/x']) {
    t.deepEqual(problems(t, settings, { URL: wrong, LAPTOP_MODE: 'true' }), [
      'URL must be postgres://role:password@host:port/database',
    ]);
  }
});

test('flag: true or false, and nothing that looks like it', (t) => {
  t.deepEqual(readings(flag(), ['true', 'false', 'TRUE', '1', 'yes']), {
    true: true,
    false: false,
    TRUE: undefined,
    1: undefined,
    yes: undefined,
  });
});

test('shownSetting: values, default and description, as somebody would write them', (t) => {
  const shown = (schema: z.ZodType) => shownSetting('SETTING', schema.describe('what it is'));
  const base = { isRequired: false, standard: undefined, description: 'what it is' };
  t.deepEqual(shown(duration({ min: 0, max: 3_600_000 }).default(90_000)), {
    ...base,
    values: '0s to 1h',
    standard: '90s',
  });
  t.deepEqual(shown(integer({ min: 1, max: 5 }).default(3)), { ...base, values: '1 to 5', standard: '3' });
  t.deepEqual(shown(flag().optional()), { ...base, values: 'true, false' });
  t.deepEqual(shown(z.enum(['one', 'each'])), { ...base, values: 'one, each', isRequired: true });
  t.deepEqual(shown(networks().default(['10.0.0.1', '::1'])), { ...base, values: 'list', standard: '10.0.0.1,::1' });
  t.deepEqual(shown(secret()), { ...base, values: 'secret', isRequired: true });
  t.deepEqual(shown(secrets()), { ...base, values: 'list of secrets', isRequired: true });
  const moved = text()
    .default('here')
    .transform((place) => `/${place}`);
  t.deepEqual(shown(moved), { ...base, values: 'text', standard: 'here' });
});

test('shownSetting: a setting without a description is an error, and so is a default that cannot be written', (t) => {
  t.throws(() => shownSetting('SETTING', text()), { message: 'SETTING has no description' });
  t.throws(() => shownSetting('SETTING', integer({ min: 1, max: 5 }).default(7).describe('too much')), {
    message: "SETTING has a default that can't be written as text",
  });
});
