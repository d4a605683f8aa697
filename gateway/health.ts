import type { ServerResponse } from 'node:http';
import { status } from '@grpc/grpc-js';
import { answerJson, answerProblem } from './http/send-answer.ts';
import { readinessOf, type Health, type PartsHealth } from '#lib/readiness.ts';
import type { Backends } from './grpc/backends.ts';
import { Problem } from './http/problem.ts';

/** How long the health of the backends is cached. */
const freshForMs = 250;

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
  #found: Promise<PartsHealth> | undefined;
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

  /** The gateway runs, and isn't about to stop: what is behind it makes no difference. */
  live(response: ServerResponse): void {
    const state = this.#isRetired ? 'stopping' : 'live';
    const body = JSON.stringify({ status: state, service: 'gateway', version: this.#version });
    answerJson(response, state === 'live' ? 200 : 503, body, state === 'live' ? {} : { 'Retry-After': '1' });
  }

  /** From now on it isn't ready. */
  retire(): void {
    this.#isRetired = true;
  }

  /**
   * Every backend, and what each depends on; 503 while one of them is down, or once the gateway is about to stop. What a backend can do
   * without is shown, too, and doesn't count.
   */
  async ready(response: ServerResponse): Promise<void> {
    const health = await this.parts();
    const { status: state, reason, ...rest } = readinessOf(health, this.#isRetired ? 'stopping' : undefined);
    const isReady = state === 'ready';
    const body = JSON.stringify({
      status: state,
      reason,
      service: 'gateway',
      version: this.#version,
      database: databaseIn(health.dependencies) ?? (isReady ? undefined : 'disconnected'),
      ...rest,
    });
    answerJson(response, isReady ? 200 : 503, body, isReady ? {} : { 'Retry-After': '1' });
  }

  /** Whether the server behind the gateway serves, as grpc-gateway's runtime answers it (`WithHealthzEndpoint`). */
  async healthz(response: ServerResponse): Promise<void> {
    const { dependencies } = await this.parts();
    const message = this.#isRetired ? 'The gateway is about to stop' : 'The server does not serve';
    if (!this.#isRetired && Object.values(dependencies).every((state) => state === 'up')) {
      answerJson(response, 200, JSON.stringify({ status: 'SERVING' }));
    } else {
      const extensions = { code: status.UNAVAILABLE, message, details: [] };
      answerProblem(response, new Problem(503, 'UNAVAILABLE', message, { extensions, retryAfter: 1 }));
    }
  }

  /** How all that is behind the gateway is. Takes at most 1 s. */
  parts(): Promise<PartsHealth> {
    const now = performance.now();
    if (this.#found === undefined || now - this.#asked > freshForMs) {
      this.#asked = now;
      this.#found = this.#backends.health();
    }
    return this.#found;
  }
}
