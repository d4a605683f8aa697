import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Observations } from './observations.ts';
import type { EventObservations } from './observe-events.ts';

const mostLines = 200;

/** All that is known of some messages, for whoever looks for what went wrong: one text for each. */
export async function storiesOf(
  messageIds: readonly string[],
  observations: Observations & { events: EventObservations },
  logFile: string,
): Promise<Map<string, string>> {
  const { journal, read, ledger, effects, records, events } = observations;
  const of = <Row extends { messageId: string }>(rows: readonly Row[], id: string) =>
    rows.filter((row) => row.messageId === id);
  const requestIds = new Map<string, string>();
  const stories = new Map<string, string[]>();
  for (const id of messageIds) {
    const sent = of(journal.messages, id);
    for (const { tries } of sent) for (const { requestId } of tries) requestIds.set(requestId, id);
    for (const { requestId } of of(records ?? [], id)) requestIds.set(requestId, id);
    const part = (title: string, rows: readonly unknown[]) => [
      title,
      ...rows.map((row) => `    ${JSON.stringify(row)}`),
    ];
    stories.set(id, [
      ...part('  what the client knows', sent),
      ...part('  over REST', read.has(id) ? [read.get(id)] : []),
      ...part('  message.messages', of(ledger.messages, id)),
      ...part('  message.deliveries', of(ledger.deliveries, id)),
      ...part('  router.routes', ledger.routes.includes(id) ? [{ messageId: id }] : []),
      ...part('  connectors.deliveries', of(ledger.attempts, id)),
      ...part('  effects', of(effects, id)),
      ...part('  topics', of(records ?? [], id)),
      ...part(
        '  events.log',
        events.log.flatMap((row) => {
          const said = events.said.get(row.eventId);
          return said?.subjectId === id ? [{ ...row, said }] : [];
        }),
      ),
      '  log',
    ]);
  }
  for await (const line of createInterface({ input: createReadStream(logFile), crlfDelay: Infinity })) {
    const owners = new Set(messageIds.filter((id) => line.includes(id)));
    const requestId = /"request_id":"([^"]+)"/.exec(line)?.[1];
    const owner = requestId === undefined ? undefined : requestIds.get(requestId);
    if (owner !== undefined) owners.add(owner);
    for (const id of owners) {
      const story = stories.get(id)!;
      if (story.length < mostLines) story.push(`    ${line}`);
    }
  }
  return new Map([...stories].map(([id, lines]) => [id, lines.join('\n')]));
}
