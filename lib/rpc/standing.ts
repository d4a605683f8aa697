import type { EventEmitter } from 'node:events';
import type { Metadata, Server, ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { clientOf } from '../client-address.ts';
import type { HubError } from '../errors.ts';
import { originator, type Serving } from './call.ts';
import { toStatus } from './status.ts';

type Placing = Pick<Serving, 'places' | 'trustedProxies'>;

/** A stream that the server writes to. */
type Stream = EventEmitter & { metadata: Metadata; getPeer(): string };

/** What answers a stream that stays open and has nothing to do most of the time, as long as there is a place for it. */
export function standing<Call extends Stream>(
  { places, trustedProxies }: Placing,
  answer: (call: Call) => void,
): (call: Call) => void {
  return (call) => {
    try {
      const { address } = originator(call, trustedProxies);
      call.on('close', places.take('standing', clientOf(address)));
    } catch (error) {
      // How grpc-js is told the status of a stream.
      call.emit('error', toStatus(error as HubError));
      return;
    }
    answer(call);
  };
}

type Watch = (call: ServerWritableStream<{ service: string }, { status: string }>) => void;

/**
 * Serves grpc.health.v1 for the given names. Whoever watches takes a place, and one of another name is told SERVICE_UNKNOWN and no
 * more: grpc-health-check would keep each such name for ever, whoever thinks it up.
 */
export function serveHealth(server: Server, names: readonly string[], placing: Placing): HealthImplementation {
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, 'NOT_SERVING'])));
  health.addToServer({
    addService(definition, implementation) {
      const watch = implementation.watch as unknown as Watch;
      const ofKnown: Watch = (call) => {
        if (names.includes(call.request.service)) watch(call);
        else call.write({ status: 'SERVICE_UNKNOWN' });
      };
      const limited = { ...implementation, watch: standing(placing, ofKnown) };
      server.addService(definition, limited as unknown as UntypedServiceImplementation);
    },
  });
  return health;
}
