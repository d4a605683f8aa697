import type { Breach, Rule } from './breach.ts';
import type { RunReport } from './run.ts';

const mostBreaches = 20;

/** Prints what happened, and whether every promise was kept. */
export function printReport(report: RunReport): void {
  const { engines, seed, faults, breaches } = report;
  const count = (...rules: Rule[]) => breaches.filter(({ rule }) => rules.includes(rule)).length;
  const rows: [string, unknown][] = [
    [
      'accepted',
      `${report.accepted} of ${report.sent} sent; ${report.refused} refused, ${report.abandoned} given up by clients`,
    ],
    ['delivered', `${report.delivered} messages, ${report.effects} effects; ${report.failed} failed`],
    ['lost', count('lost', 'no effect', 'not ended', 'file lost')],
    ['doubled', count('doubled')],
    ['out of order', count('order', 'gap')],
    ['files', `${report.files}; ${report.filesSentAgain} had to be sent again, since the store had lost a part`],
    [
      'invocations',
      `${report.invocations.counted} counted, ${report.invocations.answered} answered, ${report.invocations.seen} seen by the tool; ${report.invocations.cutOff} failed`,
    ],
    [
      'chats',
      `${report.chats.answered} of ${report.chats.written} answered, ${report.chats.accepted} accepted; ${report.chats.tasks} tasks; the model has failed ${report.chats.modelFailed} times`,
    ],
    [
      'events',
      `${report.events.logged} in the log, ${report.events.told} told on ${report.events.openings} streams and pages; ${report.events.sent} sent to webhooks, of which ${report.events.notTaken} were not taken and ${report.events.twins} taken again`,
    ],
    [
      'strangers',
      `99 % of ${report.strangers.deliveries} deliveries within ${Math.round(report.strangers.p99)} ms, beside people whom a network didn't serve`,
    ],
    ['accepted unheard', `${report.acceptedUnheard}, and accepted once all the same`],
    ['asked again', `${report.repeated} times a network was asked for what it had`],
    [
      'answers',
      Object.entries(report.statuses)
        .map(([status, times]) => `${status === '0' ? 'none' : status}: ${times}`)
        .join(', '),
    ],
  ];
  if (report.takeover !== null) rows.push(['taken over', `after ${(report.takeover / 1_000).toFixed(1)} s at most`]);
  console.log(
    `\n${engines} engines, ${report.replicas} of each service, --seed ${seed}, ${report.seconds.toFixed(0)} s`,
  );
  for (const [name, value] of rows) console.log(`  ${name.padEnd(18)}${String(value)}`);
  console.log(`\n  ${'fault'.padEnd(26)}times   accepting   all ended   longest delivery   (most, s)`);
  for (const [kind, some] of Map.groupBy(faults, (fault) => fault.kind)) {
    const most = (of: (fault: (typeof some)[number]) => number) => (Math.max(...some.map(of)) / 1_000).toFixed(1);
    const figures = [most((fault) => fault.acceptingAfter), most((fault) => fault.endedAfter)];
    const longest = ((report.longestDelivery[kind] ?? 0) / 1_000).toFixed(1);
    console.log(
      `  ${kind.padEnd(26)}${String(some.length).padStart(5)}${figures.map((figure) => figure.padStart(12)).join('')}${longest.padStart(19)}`,
    );
  }
  if (breaches.length === 0) {
    console.log('\n  Every promise was kept.');
    return;
  }
  console.log(`\n  BROKEN: ${breaches.length}`);
  for (const [rule, some] of Map.groupBy(breaches, (breach) => breach.rule)) {
    console.log(`  ${rule}: ${some.length}`);
    for (const breach of some.slice(0, mostBreaches)) console.log(`    ${lineOf(breach)}`);
  }
}

function lineOf({ messageId, text }: Breach): string {
  return messageId === undefined ? text : `${messageId} ${text}`;
}
