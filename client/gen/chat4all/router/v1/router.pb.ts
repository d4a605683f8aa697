// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.
import * as fm from '../../../../fetch.ts';

/** Which message. */
export type GetRouteRequest = {
  /** UUID of the message. */
  message_id?: string;
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

/** What was decided for a message. */
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

/** Tells what the router did with a message. Its work itself comes over the bus. */
export class RouterService {
  /**
   * What was decided for a message, for administrators: where its copies went, or why it was not routed. A message that is replayed keeps
   * its first decision.
   */
  static GetRoute(req: GetRouteRequest, initReq?: fm.InitReq): Promise<GetRouteResponse> {
    return fm.fetchReq<GetRouteResponse>(`/v1/admin/messages/${fm.pathValue(req, 'message_id')}/route`, { ...initReq, method: 'GET' });
  }
}
