import type { Balance, GetAuditRequest, GetAuditResponse } from '#client/operations';

const hour = 3_600_000;

/** How many parts of a period are read at the most: each takes the hub up to 8 s. */
const mostParts = 20;

/**
 * The books of the last hours. The hub reads a long period in parts, which are added up here.
 *
 * @returns with `next`, where there was too much to be read
 */
export async function auditOf(
  ask: (period: GetAuditRequest) => Promise<GetAuditResponse>,
  hours: number,
  now = Date.now(),
): Promise<GetAuditResponse> {
  const to = new Date(now).toISOString();
  let books = await ask({ from: new Date(now - hours * hour).toISOString(), to });
  for (let parts = 1; books.next !== null && parts < mostParts; parts += 1) {
    books = addUp(books, await ask({ from: books.next, to }));
  }
  return books;
}

/** How many of a kind are shown, as the hub has it for a part. */
const mostNamed = 20;

/** The books of a part and those of the next one, together. What does not depend on the period is that of the later one. */
function addUp(earlier: GetAuditResponse, later: GetAuditResponse): GetAuditResponse {
  return {
    ...later,
    from: earlier.from,
    balanced: earlier.balanced && later.balanced,
    messages: sum(earlier.messages, later.messages),
    deliveries: sum(earlier.deliveries, later.deliveries),
    mismatched: [...earlier.mismatched, ...later.mismatched].slice(0, mostNamed),
    mismatched_total: earlier.mismatched_total + later.mismatched_total,
    overdue: earlier.overdue + later.overdue,
    gaps: [...earlier.gaps, ...later.gaps].slice(0, mostNamed),
    gaps_total: earlier.gaps_total + later.gaps_total,
    oldest_in_flight: earlier.oldest_in_flight ?? later.oldest_in_flight,
    removed_before: earlier.removed_before ?? later.removed_before,
  };
}

function sum(a: Balance, b: Balance): Balance {
  return {
    accepted: a.accepted + b.accepted,
    delivered: a.delivered + b.delivered,
    failed: a.failed + b.failed,
    in_flight: a.in_flight + b.in_flight,
  };
}
