import { HubError } from '#lib/errors.ts';
import { written } from '#lib/log.ts';
import type { Connector, TellsLater } from '../connector.ts';
import { instantProvider, type Provider } from './provider.ts';

/** A connector without a network: it accepts every message at once and logs it. */
export interface MockConnector extends Connector, TellsLater {
  /** The same connector on a simulated network. */
  simulatedBy(provider: Provider): Connector & TellsLater;
}

export function isMock(connector: Connector): connector is MockConnector {
  return 'simulatedBy' in connector;
}

export function mockConnector(called: { name: string; title: string }): MockConnector {
  return { ...connectorTo(instantProvider(), called), simulatedBy: (provider) => connectorTo(provider, called) };
}

function connectorTo(provider: Provider, { name, title }: { name: string; title: string }): Connector & TellsLater {
  let started = false;
  let listener: Parameters<TellsLater['onReceipts']>[0] | undefined;
  return {
    name,
    title,
    async start() {
      started = true;
      provider.reportTo(listener);
    },
    async stop() {
      started = false;
      provider.reportTo(undefined);
    },
    onReceipts(given) {
      listener = given;
    },
    async deliver(delivery, { idempotencyKey, replay, signal, log }) {
      if (!started) throw new HubError('UNAVAILABLE', 'CONNECTOR_STOPPED', `${title} is not connected`);
      if (signal.aborted) throw new HubError('CANCELLED', 'DELIVERY_CANCELLED', 'The delivery was called off');
      return provider.take(delivery, { idempotencyKey, replay, signal }, () => {
        const { messageId, recipientId } = delivery;
        log.info(`INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no ${title}`);
        // The line is the whole effect: whoever kills this process finds either both, the line and the outcome, or only the line.
        return written(log);
      });
    },
  };
}
