import type { EventEmitter } from 'node:events';
import type { Metadata, Server, ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { clientOf } from '../client-address.ts';
import { HubError } from '../errors.ts';
import { originator, type Serving } from './call.ts';
import { toStatus } from './status.ts';

/** A stream that the server writes to. */
type Stream = EventEmitter & { metadata: Metadata; getPeer(): string };

/** Streams that stay open and are idle most of the time: health and reflection. */
export class Standing {
  readonly #places: Serving['places'];
  readonly #trustedProxies: Serving['trustedProxies'];
  readonly #open = new Set<Stream>();
  #hasEnded = false;

  constructor({ places, trustedProxies }: Pick<Serving, 'places' | 'trustedProxies'>) {
    this.#places = places;
    this.#trustedProxies = trustedProxies;
  }

  /** Wraps the handler of such a stream, so that each takes a place. */
  answering<Call extends Stream>(answer: (call: Call) => void): (call: Call) => void {
    return (call) => {
      try {
        if (this.#hasEnded) throw stopping();
        const { address } = originator(call, this.#trustedProxies);
        const leave = this.#places.take('standing', clientOf(address));
        this.#open.add(call);
        call.on('close', () => {
          leave();
          this.#open.delete(call);
        });
      } catch (error) {
        // grpc-js takes the status of a stream from its error event.
        call.emit('error', toStatus(error as HubError));
        return;
      }
      answer(call);
    };
  }

  /** Ends all of them: they would keep the server from stopping, though they are idle. */
  end(): void {
    this.#hasEnded = true;
    for (const call of this.#open) call.emit('error', toStatus(stopping()));
  }
}

function stopping(): HubError {
  return new HubError('UNAVAILABLE', 'STOPPING', 'The server is about to stop', { retryAfter: 1 });
}

type Watch = (call: ServerWritableStream<{ service: string }, { status: string }>) => void;

/**
 * Serves grpc.health.v1 for the given names. Each watcher takes a place. A watcher of another name gets SERVICE_UNKNOWN once:
 * grpc-health-check would remember each such name for ever, whatever clients make up.
 */
export function serveHealth(
  server: Pick<Server, 'addService'>,
  names: readonly string[],
  stand: Standing,
): HealthImplementation {
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, 'NOT_SERVING'])));
  health.addToServer({
    addService(definition, implementation) {
      const watch = implementation.watch as unknown as Watch;
      const ofKnown: Watch = (call) => {
        if (names.includes(call.request.service)) watch(call);
        else call.write({ status: 'SERVICE_UNKNOWN' });
      };
      const limited = { ...implementation, watch: stand.answering(ofKnown) };
      server.addService(definition, limited as unknown as UntypedServiceImplementation);
    },
  });
  return health;
}
