import type { TestFn } from 'ava';
import { v4 as uuid } from 'uuid';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { connectorName, type Connector, type DeliveryToMake } from './connector.ts';

export interface ContractOptions {
  /** The folder that the connector was found in. */
  folder: string;
  /** For a connector whose network is the log: the line that a delivery writes. */
  line?: (delivery: DeliveryToMake) => string;
}

/** A delivery of a text that has half a minute left. */
export function sampleDelivery(given: Partial<DeliveryToMake> = {}): DeliveryToMake {
  return {
    messageId: uuid(),
    conversationId: uuid(),
    seq: 1n,
    senderId: uuid(),
    recipientId: uuid(),
    content: { type: 'text', text: 'Olá' },
    priority: 'normal',
    deliverBy: new Date(Date.now() + 30_000),
    ...given,
  };
}

/** Declares the tests that every connector must pass. */
export function connectorContract(test: TestFn, connector: Connector, { folder, line }: ContractOptions): void {
  const title = (text: string) => `connector ${folder}: ${text}`;

  /** Delivers, with a log whose messages go to `written`. */
  function openConnection() {
    const written: string[] = [];
    const log = openLog({
      name: 'contract',
      format: 'json',
      level: 'info',
      destination: { write: (text) => void written.push((JSON.parse(text) as { msg: string }).msg) },
    });
    const deliver = (
      delivery: DeliveryToMake,
      { idempotencyKey = uuid() as string, signal = new AbortController().signal } = {},
    ) => connector.deliver(delivery, { idempotencyKey, replay: 0, signal, log });
    return { written, deliver };
  }

  test.serial(title('is called like its folder, and has a title for people'), (t) => {
    t.is(connector.name, folder);
    t.regex(connector.name, connectorName);
    t.regex(connector.title, /^\S(.*\S)?$/);
  });

  test.serial(title('delivers a text and a file, each once'), async (t) => {
    const { written, deliver } = openConnection();
    await connector.start();
    const text = sampleDelivery();
    const content = {
      type: 'file',
      fileId: uuid(),
      filename: 'a.png',
      fileSize: 3n,
      contentType: 'image/png',
    } as const;
    const file = sampleDelivery({ content });
    await t.notThrowsAsync(deliver(text));
    await t.notThrowsAsync(deliver(file));
    if (line !== undefined) t.deepEqual(written, [line(text), line(file)]);
    await connector.stop();
  });

  test.serial(title('takes many deliveries at once'), async (t) => {
    const { written, deliver } = openConnection();
    await connector.start();
    const deliveries = Array.from({ length: 100 }, () => sampleDelivery());
    await t.notThrowsAsync(Promise.all(deliveries.map((delivery) => deliver(delivery))));
    if (line !== undefined) t.deepEqual(written.toSorted(), deliveries.map(line).toSorted());
    await connector.stop();
  });

  test.serial(title('delivers once what is asked for twice with the same idempotency key'), async (t) => {
    const { written, deliver } = openConnection();
    await connector.start();
    const [idempotencyKey, delivery] = [uuid() as string, sampleDelivery()];
    await deliver(delivery, { idempotencyKey });
    await t.notThrowsAsync(deliver(delivery, { idempotencyKey }));
    if (line !== undefined) t.deepEqual(written, [line(delivery)]);
    await connector.stop();
  });

  test.serial(title('refuses what was called off before it began, and can deliver it later'), async (t) => {
    const { written, deliver } = openConnection();
    await connector.start();
    const [idempotencyKey, delivery] = [uuid() as string, sampleDelivery()];
    await t.throwsAsync(deliver(delivery, { idempotencyKey, signal: AbortSignal.abort() }), { instanceOf: HubError });
    t.deepEqual(written, []);
    await deliver(delivery, { idempotencyKey });
    if (line !== undefined) t.deepEqual(written, [line(delivery)]);
    await connector.stop();
  });

  test.serial(title('may be started and stopped again and again, and refuses deliveries while stopped'), async (t) => {
    const { written, deliver } = openConnection();
    const delivery = sampleDelivery();
    await connector.stop();
    for (let round = 0; round < 2; round += 1) {
      const refused = await t.throwsAsync(deliver(delivery), { instanceOf: HubError });
      t.is((refused as HubError).kind, 'UNAVAILABLE');
      t.deepEqual(written, []);
      await connector.start();
      await connector.start();
      await t.notThrowsAsync(deliver(delivery));
      await connector.stop();
      await connector.stop();
      written.length = 0;
    }
  });
}
