import type { EventEmitter } from 'node:events';
import type { Server, ServiceDefinition, StatusObject, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HubError } from '../errors.ts';
import { canonical } from './canonical.ts';
import { registry } from './schema.ts';
import { toStatus } from './status.ts';

/** What bytes are that are no request. */
export function malformedRequest(): HubError {
  return new HubError('INVALID_ARGUMENT', 'MALFORMED_REQUEST', 'The request is no message of the expected type');
}

/** Stands for a request that is none: a deserialiser must not throw, since grpc-js answers INTERNAL then. */
const malformed = {};

/** A call of whatever kind. */
type ServedCall = EventEmitter & { request?: unknown };
type Answer = (error: Partial<StatusObject>) => void;
type Handle = (call: ServedCall, answer?: Answer) => void;

/**
 * A server to which services are added that others have written (health, reflection, channelz): what is no request of theirs is
 * refused with INVALID_ARGUMENT, as it is with ours.
 */
export function refusingMalformed(server: Server): Pick<Server, 'addService'> {
  return {
    addService(definition, implementation) {
      const methods = Object.entries(definition).map(([key, method]) => {
        const [, service = '', name = ''] = method.path.split('/');
        const described = registry.getService(service)?.methods.find((each) => each.name === name);
        const requestDeserialize = (encoded: Buffer): unknown => {
          try {
            const bytes = described === undefined ? encoded : canonical(described.input, encoded);
            return method.requestDeserialize(bytes as Buffer);
          } catch {
            return malformed;
          }
        };
        return [key, { ...method, requestDeserialize }] as const;
      });
      const handlers = Object.entries(implementation).map(
        ([key, handle]) => [key, refusing(handle as unknown as Handle)] as const,
      );
      server.addService(
        Object.fromEntries(methods) as ServiceDefinition,
        Object.fromEntries(handlers) as unknown as UntypedServiceImplementation,
      );
    },
  };
}

function refusing(handle: Handle): Handle {
  return (call, answer) => {
    const refuse = () => {
      const status = toStatus(malformedRequest());
      // How grpc-js is told the status of a stream.
      if (answer === undefined) call.emit('error', status);
      else answer(status);
    };
    if (call.request === malformed) return refuse();
    const emit = call.emit.bind(call) as (event: string | symbol, ...given: unknown[]) => boolean;
    // Of a stream of requests each one is told of by an event.
    call.emit = (event: string | symbol, ...given: unknown[]) => {
      if (event !== 'data' || given[0] !== malformed) return emit(event, ...given);
      refuse();
      return true;
    };
    handle(call, answer);
  };
}
