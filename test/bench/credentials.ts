import { Agent, request } from 'node:http';
import { between, startHub } from './processes.ts';

export interface CredentialsReport {
  /** Milliseconds of CPU that a call takes in the gateway and auth together, in each round. */
  bearer: number[];
  apiKey: number[];
  /** Of what all calls with an API key took to what all with a token did. */
  ratio: number;
  problems: string[];
}

/** How much more a call with an API key may take than one with a token. */
export const credentialsGoal = 1.2;

const target = '/v1/users/me';
const clients = 16;
const rounds = 5;
const warmUpSeconds = 5;
const answerLimit = 10_000;
const measured = ['gateway', 'auth'];

/** What a small read costs with an API key and with a token, in turns. */
export async function measureCredentials(
  folder: string,
  seconds: number,
  signal: AbortSignal,
): Promise<CredentialsReport> {
  await using started = new AsyncDisposableStack();
  const env = { DATABASE_URL: undefined, KAFKA_BROKERS: undefined, S3_ENDPOINT: undefined, BCRYPT_COST: '10' };
  const hub = await startHub(folder, { ...env, SEED_USERS: '1', RATE_LIMIT: '0' }, signal);
  started.defer(() => hub.remote.stop());
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  started.defer(() => agent.destroy());

  const ask = (method: string, path: string, headers: Record<string, string>, json?: object) =>
    new Promise<{ status: number; body: string }>((resolve, reject) => {
      const type = json === undefined ? {} : { 'content-type': 'application/json' };
      const sent = request(`${hub.url}${path}`, {
        method,
        agent,
        timeout: answerLimit,
        headers: { ...headers, ...type },
      });
      sent.on('response', (response) => {
        let body = '';
        response.on('data', (data) => (body += String(data)));
        response.on('end', () => resolve({ status: response.statusCode!, body }));
      });
      sent.on('timeout', () => sent.destroy(new Error('no answer')));
      sent.on('error', reject);
      sent.end(json === undefined ? undefined : JSON.stringify(json));
    });

  const login = await ask('POST', '/auth/token', {}, { username: 'user1', password: 'password123' });
  const { token } = JSON.parse(login.body) as { token: string };
  const bearer = { authorization: `Bearer ${token}` };
  const made = await ask('POST', '/api/v1/users/me/api-keys', bearer, { name: 'of the benchmark' });
  const { data } = JSON.parse(made.body) as { data: { key: string } };
  const apiKey = { 'x-api-key': data.key };

  const problems: string[] = [];
  /** @returns how many calls were answered */
  async function run(headers: Record<string, string>, length: number): Promise<number> {
    let answered = 0;
    const end = performance.now() + length * 1_000;
    const call = async () => {
      while (performance.now() < end && !signal.aborted) {
        const { status, body } = await ask('GET', target, headers);
        answered += 1;
        if (status !== 200 && problems.length < 10) problems.push(`${Object.keys(headers)[0]}: ${status} ${body}`);
      }
    };
    await Promise.all(Array.from({ length: clients }, call));
    return answered;
  }

  const totals = { bearer: { cpu: 0, calls: 0 }, apiKey: { cpu: 0, calls: 0 } };
  const figures = { bearer: [] as number[], apiKey: [] as number[] };
  const measure = async (which: 'bearer' | 'apiKey') => {
    const used = await between(
      () => hub.remote.ask('pids', undefined, 5_000),
      () => run(which === 'bearer' ? bearer : apiKey, seconds),
    );
    const cpu = measured.reduce((sum, name) => sum + (used.cpu[name] ?? 0), 0);
    totals[which].cpu += cpu;
    totals[which].calls += used.result;
    figures[which].push((cpu * 1_000) / used.result);
  };

  await run(bearer, warmUpSeconds);
  await run(apiKey, warmUpSeconds);
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? (['bearer', 'apiKey'] as const) : (['apiKey', 'bearer'] as const);
    for (const which of order) await measure(which);
  }
  const costOf = ({ cpu, calls }: { cpu: number; calls: number }) => cpu / calls;
  return { ...figures, ratio: costOf(totals.apiKey) / costOf(totals.bearer), problems };
}

export function printCredentials({ bearer, apiKey, ratio, problems }: CredentialsReport): void {
  console.log(`\nGET ${target}, ${clients} at once: milliseconds of CPU of a call, in ${measured.join(' and ')}\n`);
  for (const [name, figures] of [
    ['a token', bearer],
    ['an API key', apiKey],
  ] as const) {
    console.log(`  ${name.padEnd(12)} ${figures.map((each) => each.toFixed(3).padStart(7)).join(' ')}`);
  }
  const told = ratio <= credentialsGoal ? 'reached    ' : 'NOT REACHED';
  console.log(`\n  ${told} an API key costs ${ratio.toFixed(2)} of what a token does (at most ${credentialsGoal})`);
  for (const problem of problems) console.log(`  ${problem}`);
}
