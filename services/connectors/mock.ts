import { HubError } from '#lib/errors.ts';
import type { Connector } from './connector.ts';

/** How many deliveries a network remembers, to recognise those that are repeated. */
const remembered = 10_000;

/** A network that isn't there: it takes every message and says so in the log. */
export function mockConnector({ name, title }: { name: string; title: string }): Connector {
  let started = false;
  const taken = new Set<string>();
  return {
    name,
    title,
    async start() {
      started = true;
    },
    async stop() {
      started = false;
    },
    async deliver({ messageId, recipientId }, { idempotencyKey, signal, log }) {
      if (!started) throw new HubError('UNAVAILABLE', 'CONNECTOR_STOPPED', `${title} is not connected`);
      if (signal.aborted) throw new HubError('CANCELLED', 'DELIVERY_CANCELLED', 'The delivery was called off');
      if (taken.has(idempotencyKey)) return;
      if (taken.size >= remembered) taken.delete(taken.values().next().value!);
      taken.add(idempotencyKey);
      log.info(`INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no ${title}`);
    },
  };
}
