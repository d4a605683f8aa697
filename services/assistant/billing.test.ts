import test from 'ava';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { billingBy } from './billing.ts';

const asker = { userId: 'a0000000-0000-4000-8000-000000000001', requestId: 'request-1' };
const used = { tokens: 12, status: 'success', duration: 345 } as const;

/** The RPCs of a tools service of which each settlement ends as the next of `outcomes`. */
function toolsThat(...outcomes: (HubError | undefined)[]) {
  const reserved: object[] = [];
  const settled: object[] = [];
  return {
    reserved,
    settled,
    tools: {
      async reserveTokens(request: object) {
        reserved.push(request);
        return { reservationId: 'b0000000-0000-4000-8000-000000000001' };
      },
      async settleTokens(request: object) {
        settled.push(request);
        const outcome = outcomes.shift();
        if (outcome !== undefined) throw outcome;
        return {};
      },
    },
  };
}

function logged() {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  return { lines, log: openLog({ name: 'assistant', format: 'json', level: 'info', destination }) };
}

const away = new HubError('UNAVAILABLE', 'SERVICE_UNAVAILABLE', 'away');

test('what an answer has used is written down again and again while the tools service is away', async (t) => {
  const { tools, reserved, settled } = toolsThat(away, away, undefined);
  const { log, lines } = logged();
  const bill = await billingBy(tools, { log, limit: 120_000 }).reserve(asker);
  t.deepEqual(reserved, [{ ...asker, seconds: 120 }]);
  await bill.settle(used);
  t.is(settled.length, 3);
  t.like(settled[2], { userId: asker.userId, tokens: 12n, durationMs: 345 });
  t.deepEqual(lines, []);
});

test('what can never be written down is in the log, and fails nobody', async (t) => {
  const gone = new HubError('FAILED_PRECONDITION', 'RESERVATION_EXPIRED', 'too late');
  const { tools, settled } = toolsThat(gone);
  const { log, lines } = logged();
  await (await billingBy(tools, { log, limit: 120_000 }).reserve(asker)).settle(used);
  t.is(settled.length, 1);
  t.is(lines.length, 1);
  t.like(JSON.parse(lines[0]!), { reason: 'RESERVATION_EXPIRED', requestId: 'request-1', tokens: 12 });
});

test('an answer that failed costs nothing', async (t) => {
  const { tools, settled } = toolsThat();
  const { log } = logged();
  await (await billingBy(tools, { log, limit: 120_000 }).reserve(asker)).settle({ ...used, status: 'error' });
  t.like(settled, [{ tokens: 0n }]);
});
