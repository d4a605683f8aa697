import type { TestFn } from 'ava';
import { HubError } from '../errors.ts';
import { collector, eventFor, eventually, newTopic, open, textOf, type Engines } from './contract/fixtures.ts';
import { consumingContract } from './contract/consuming.ts';
import { publishingContract } from './contract/publishing.ts';
import { roundsContract } from './contract/rounds.ts';
import { stoppingContract } from './contract/stopping.ts';
import { takeoverContract } from './contract/takeover.ts';

/** The contract of the bus, tested on every engine. Each test has topics of its own, so that they may run at once. */
export function busContract(test: TestFn, engines: Engines): void {
  test.serial('an engine that stops and comes back: publish, probe and consume fail clearly and recover', async (t) => {
    const engine = await engines.startPrivate();
    t.teardown(() => engine.remove());
    const bus = await open(t, engine);
    const topic = await newTopic(bus);
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await bus.publish(topic, [eventFor('key', 'before')]);
    await seen.until(1);

    await engine.stop();
    const isAway = { instanceOf: HubError, message: /not available/ };
    const refused = await t.throwsAsync<HubError>(() => bus.publish(topic, [eventFor('key', 'during')]), isAway);
    t.like(refused, { kind: 'UNAVAILABLE', reason: 'BUS_UNAVAILABLE', retryAfter: 1 });
    const unanswered = await t.throwsAsync<HubError>(() => bus.probe(), isAway);
    t.is(unanswered?.reason, 'BUS_UNAVAILABLE');

    await engine.start();
    const works = (work: () => Promise<void>) => async () => work().then(...([() => true, () => false] as const));
    await eventually(
      'probe works again',
      works(() => bus.probe()),
    );
    await eventually(
      'publish works again',
      works(() => bus.publish(topic, [eventFor('key', 'after')])),
    );
    await eventually('the consumer gets events again', () => seen.events.some((event) => textOf(event) === 'after'));
    t.is(textOf(seen.events[0]!), 'before');
  });

  publishingContract(test, engines);
  consumingContract(test, engines);
  roundsContract(test, engines);
  takeoverContract(test, engines);
  stoppingContract(test, engines);
}
