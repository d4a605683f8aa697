import type { ServerResponse } from 'node:http';
import { status } from '@grpc/grpc-js';
import { answerJson, answerProblem } from './answer.ts';
import type { Backends, Health } from './backends.ts';
import { Problem } from './problem.ts';

/** How long an answer about the backends stays true: asking more often asks nobody. */
const freshFor = 250;

/**
 * Whether all databases of the services are there: those that they name `database` in their health. While services are down that
 * would know, it is what the others say; undefined if nobody says anything.
 */
function databaseIn(dependencies: Readonly<Record<string, Health>>): 'connected' | 'disconnected' | undefined {
  const states = Object.entries(dependencies).filter(([name]) => name.endsWith('.database'));
  if (states.length === 0) return undefined;
  return states.every(([, state]) => state === 'up') ? 'connected' : 'disconnected';
}

/** Answers whether the gateway runs, and whether all that is behind it does. */
export class HealthAnswers {
  readonly #backends: Backends;
  readonly #version: string;
  #asked = Number.NEGATIVE_INFINITY;
  #found: Promise<Record<string, Health>> | undefined;
  #isRetired = false;

  /** @param version of the gateway, where it says so */
  constructor(backends: Backends, version = '') {
    this.#backends = backends;
    this.#version = version;
  }

  /** The gateway runs. */
  health(response: ServerResponse): void {
    answerJson(response, 200, JSON.stringify({ status: 'ok', service: 'gateway', version: this.#version }));
  }

  /** From now on it isn't ready. */
  retire(): void {
    this.#isRetired = true;
  }

  /** Every backend, and what each depends on; 503 while one of them is down, or once the gateway is about to stop. */
  async ready(response: ServerResponse): Promise<void> {
    const dependencies = await this.#dependencies();
    const isReady = !this.#isRetired && Object.values(dependencies).every((state) => state === 'up');
    const body = JSON.stringify({
      status: isReady ? 'ready' : 'not_ready',
      reason: isReady ? undefined : this.#isRetired ? 'stopping' : 'unavailable',
      service: 'gateway',
      version: this.#version,
      database: databaseIn(dependencies) ?? (isReady ? undefined : 'disconnected'),
      dependencies,
    });
    answerJson(response, isReady ? 200 : 503, body, isReady ? {} : { 'Retry-After': '1' });
  }

  /** Whether the server behind the gateway serves, as grpc-gateway's runtime answers it (`WithHealthzEndpoint`). */
  async healthz(response: ServerResponse): Promise<void> {
    const dependencies = await this.#dependencies();
    const message = this.#isRetired ? 'The gateway is about to stop' : 'The server does not serve';
    if (!this.#isRetired && Object.values(dependencies).every((state) => state === 'up')) {
      answerJson(response, 200, JSON.stringify({ status: 'SERVING' }));
    } else {
      const extensions = { code: status.UNAVAILABLE, message, details: [] };
      answerProblem(response, new Problem(503, 'UNAVAILABLE', message, { extensions, retryAfter: 1 }));
    }
  }

  #dependencies(): Promise<Record<string, Health>> {
    const now = performance.now();
    if (this.#found === undefined || now - this.#asked > freshFor) {
      this.#asked = now;
      this.#found = this.#backends.health();
    }
    return this.#found;
  }
}
