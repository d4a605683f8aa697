import type { Breach } from './breach.ts';
import type { ToolObservations } from './invokers.ts';

/** Every invocation is counted once, as its caller and the tool saw it, and all sums are sums of the same. */
export function checkTools(observations: ToolObservations): Breach[] {
  return [...checkCalls(observations), ...checkRows(observations), ...checkSums(observations)];
}

function checkCalls({ calls, said, usage }: ToolObservations): Breach[] {
  const breaches: Breach[] = [];
  const rows = Map.groupBy(usage, ({ requestId }) => requestId);
  for (const { requestId, userId, status, code, tokens } of calls) {
    const [row, ...more] = rows.get(requestId) ?? [];
    const call = `invocation ${requestId}`;
    if (more.length > 0) breaches.push({ rule: 'doubled', text: `${call} is counted ${1 + more.length} times` });
    if (status === 200 && (row?.status !== 'success' || row.tokens !== tokens)) {
      breaches.push({ rule: 'lost', text: `${call} cost ${tokens}, and is counted as ${JSON.stringify(row)}` });
    }
    if (status >= 400 && status < 500 && row !== undefined) {
      breaches.push({ rule: 'forged', text: `${call} was refused (${code}), and is counted` });
    }
    if (status === 500) breaches.push({ rule: 'internal error', text: `${call} was answered 500 ${code}` });
    if (row !== undefined && row.userId !== userId) {
      breaches.push({ rule: 'changed', text: `${call} is counted for ${row.userId}, not for ${userId}` });
    }
  }
  for (const requestId of said.keys()) {
    if (!rows.has(requestId))
      breaches.push({ rule: 'lost', text: `invocation ${requestId} reached the tool for free` });
  }
  return breaches;
}

function checkRows({ calls, said, usage }: ToolObservations): Breach[] {
  const breaches: Breach[] = [];
  const tried = new Set(calls.map(({ requestId }) => requestId));
  for (const { requestId, status, tokens } of usage) {
    const expected = status === 'success' ? said.get(requestId) : 0;
    if (!tried.has(requestId))
      breaches.push({ rule: 'forged', text: `invocation ${requestId} is counted, and nobody made it` });
    if (tokens !== expected) {
      breaches.push({ rule: 'books', text: `invocation ${requestId} (${status}) counts ${tokens}, not ${expected}` });
    }
  }
  return breaches;
}

function checkSums({ usage, counted, summed, left }: ToolObservations): Breach[] {
  const breaches: Breach[] = [];
  const sumOf = (rows: ToolObservations['usage']) => rows.reduce((sum, { tokens }) => sum + tokens, 0);
  const byUser = Map.groupBy(usage, ({ userId }) => userId);
  for (const userId of new Set([...counted.keys(), ...byUser.keys()])) {
    const sum = sumOf(byUser.get(userId) ?? []);
    if (counted.get(userId) !== sum) {
      breaches.push({
        rule: 'books',
        text: `the subscription of ${userId} counts ${counted.get(userId)}, its usage ${sum}`,
      });
    }
  }
  if (summed.tokens !== sumOf(usage) || summed.invocations !== usage.length) {
    const sums = `${summed.tokens} tokens of ${summed.invocations} invocations`;
    breaches.push({ rule: 'books', text: `the days have ${sums}, the usage ${sumOf(usage)} of ${usage.length}` });
  }
  for (const [table, count] of Object.entries(left)) {
    if (count > 0) breaches.push({ rule: 'orphan', text: `${count} rows are left in tools.${table}` });
  }
  return breaches;
}
