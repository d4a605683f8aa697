import { loadConfig } from '../../config.ts';
import { openLog } from '../../log.ts';
import { busSettings, openBus } from '../open.ts';

/** The process that `contract.ts` kills and freezes. */
const topic = process.argv[2]!;
const say = (line: string) => process.send!(line);
const told = new Promise<void>((resolve) => process.once('message', () => resolve()));
const handled = Promise.withResolvers<void>();

const log = openLog({ name: 'contract-consumer', format: 'json', level: 'silent' });
const bus = await openBus(loadConfig(busSettings), { log, clientId: 'contract-consumer' });
await bus.consume({
  topics: [topic],
  group: 'readers',
  async handle(events) {
    say(`handled ${events.map((event) => Buffer.from(event.value).toString()).join()}`);
    await told;
    handled.resolve();
  },
});
await handled.promise;
await bus.stop();
say('stopped');
process.disconnect();
