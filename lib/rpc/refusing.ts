import type { EventEmitter } from 'node:events';
import type { Server, ServiceDefinition, StatusObject, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HubError } from '../errors.ts';
import { canonical } from './canonical.ts';
import { registry } from './schema.ts';
import { toStatus } from './status.ts';

/** The error for bytes that are no valid request. */
export function malformedRequest(): HubError {
  return new HubError('INVALID_ARGUMENT', 'MALFORMED_REQUEST', 'The request is no message of the expected type');
}

/** Stands for an invalid request: a deserialiser must not throw, since grpc-js would answer INTERNAL. */
const malformed = {};

/** A call of whatever kind. */
type ServedCall = EventEmitter & { request?: unknown };
type Answer = (error: Partial<StatusObject>) => void;
type Handle = (call: ServedCall, answer?: Answer) => void;

/**
 * Adds services from packages (health, reflection, channelz) to a server, so that invalid requests are refused with INVALID_ARGUMENT, as
 * those of our own services are.
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
      // grpc-js takes the status of a stream from its error event.
      if (answer === undefined) call.emit('error', status);
      else answer(status);
    };
    if (call.request === malformed) return refuse();
    const emit = call.emit.bind(call) as (event: string | symbol, ...given: unknown[]) => boolean;
    // Each message of a request stream is an event.
    call.emit = (event: string | symbol, ...given: unknown[]) => {
      if (event !== 'data' || given[0] !== malformed) return emit(event, ...given);
      refuse();
      return true;
    };
    handle(call, answer);
  };
}
