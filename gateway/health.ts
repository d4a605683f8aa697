import type { ServerResponse } from 'node:http';
import { answerJson } from './answer.ts';
import type { Backends, Health } from './backends.ts';

/** How long an answer about the backends stays true: asking more often asks nobody. */
const freshFor = 250;

/** Answers whether the gateway runs, and whether all that is behind it does. */
export class HealthAnswers {
  readonly #backends: Backends;
  readonly #version: string;
  #asked = Number.NEGATIVE_INFINITY;
  #found: Promise<Record<string, Health>> | undefined;
  #isRetired = false;

  constructor(backends: Backends, version: string) {
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
    const status = isReady ? 'ok' : this.#isRetired ? 'stopping' : 'unavailable';
    const body = JSON.stringify({ status, service: 'gateway', version: this.#version, dependencies });
    answerJson(response, isReady ? 200 : 503, body, isReady ? {} : { 'Retry-After': '1' });
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
