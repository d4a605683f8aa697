// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as codes from '../../../codes.ts';

/** Which message. */
export type GetRouteRequest = {
  /** UUID of the message. */
  message_id: string;
};

/** Where one copy of a message was sent. */
export type RoutedDelivery = {
  /** User id of the recipient. */
  recipient_id: string;
  /** Name of the channel. */
  channel: string;
  /** The topic that the request was published on. */
  topic: string;
};

/** The decision for a message. */
export type GetRouteResponse = {
  /** UUID of the message. */
  message_id: string;
  /** UUID of its conversation. */
  conversation_id: string;
  /** When it was decided. */
  routed_at: string;
  /** Why it was not routed; empty if it was. */
  rejected_reason: string;
  /** Where its copies went. */
  deliveries: RoutedDelivery[];
};

/** The error codes of `getRoute`. */
export type GetRouteCode = 'DATABASE_UNAVAILABLE' | 'ROUTE_NOT_FOUND' | codes.CommonCode;

/** Reports routing decisions. Messages themselves come over the bus. */
export class RouterService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Returns the routing decision for a message, for administrators: where its copies went, or why it was not routed. A replayed message
   * keeps its first decision.
   */
  getRoute(request: GetRouteRequest, options?: CallOptions): Reply<GetRouteResponse, GetRouteCode> {
    return this.#caller.reply<GetRouteResponse>({ verb: 'GET', path: '/v1/admin/messages/{message_id}/route', isRepeatable: true }, request, options);
  }
}
