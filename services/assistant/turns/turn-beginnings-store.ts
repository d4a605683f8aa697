import type { Database, SqlTransaction } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { conversationNotFound, titleOf, type Step } from '../conversations/conversation.ts';
import type { Progress } from './agent.ts';
import { findKey, keepKey, lockKey, type IdempotencyKey } from './idempotency-keys-store.ts';

/** A turn that this process has begun or resumed. */
export interface OwnedTurn {
  /** The answer's id, which is the turn's, too. */
  messageId: bigint;
  conversationId: bigint;
  /** The message that is answered. */
  questionId: bigint;
  question: string;
  approveTools: boolean;
  progress: Progress;
  /** Milliseconds that it has worked before. */
  activeMs: number;
  /** The number of its next event. */
  nextEvent: number;
}

/** What a turn is to begin with. */
export interface Beginning {
  userId: string;
  numId: bigint;
  /** The process that begins it: UUID. */
  owner: string;
  approveTools: boolean;
}

export interface NewMessage extends Beginning {
  /** Undefined for a new conversation. */
  conversationId: bigint | undefined;
  message: string;
  idempotency: Omit<IdempotencyKey, 'userId'> | undefined;
}

export interface TurnBeginningsOptions {
  /** How long the lease on a turn lasts, in milliseconds. */
  lease: number;
  /** How many answers one user may ask for within a minute. */
  rateLimit: number;
}

const uniqueViolation = '23505';

/** The conversation has an open turn whose process has died. It has to be ended before another one begins. */
export class LostTurn extends Error {
  override name = 'LostTurn';
  readonly messageId: bigint;

  constructor(messageId: bigint) {
    super('The conversation has an open turn whose process has died');
    this.messageId = messageId;
  }
}

export function turnInProgress(): HubError {
  return new HubError('ABORTED', 'TURN_IN_PROGRESS', 'The assistant is still answering in this conversation');
}

/** Begins turns, and resumes them after the user's decision about a tool call. The calling process then owns them. */
export function openTurnBeginnings(db: Database, { lease, rateLimit }: TurnBeginningsOptions) {
  const leaseText = `${lease} milliseconds`;

  /** @throws HubError RESOURCE_EXHAUSTED `RATE_LIMITED` */
  async function keepRate(sql: SqlTransaction, userId: string): Promise<void> {
    const [row] = await sql.sql<{ count: bigint; seconds: number }>(
      `select count(*) as count, extract(epoch from min(began_at) + interval '1 minute' - now())::float8 as seconds
       from turns where user_id = $1 and began_at > now() - interval '1 minute'`,
      [userId],
    );
    if (row!.count < BigInt(rateLimit)) return;
    throw new HubError('RESOURCE_EXHAUSTED', 'RATE_LIMITED', 'You have asked for too many answers within a minute', {
      retryAfter: Math.max(1, Math.ceil(row!.seconds)),
    });
  }

  /** @throws LostTurn, HubError ABORTED `TURN_IN_PROGRESS` */
  async function requireQuiet(sql: SqlTransaction, conversationId: bigint): Promise<void> {
    const [open] = await sql.sql<{ message_id: bigint; is_lost: boolean }>(
      `select message_id, coalesce(lease_until < now(), false) as is_lost
       from turns where conversation_id = $1 and ended_at is null`,
      [conversationId],
    );
    if (open === undefined) return;
    if (open.is_lost) throw new LostTurn(open.message_id);
    throw turnInProgress();
  }

  async function insertTurn(
    sql: SqlTransaction,
    { userId, owner, approveTools }: Beginning,
    { conversationId, questionId, question }: { conversationId: bigint; questionId: bigint; question: string },
  ): Promise<OwnedTurn> {
    const [row] = await sql.sql<{ id: bigint }>(
      `with answer as (
         insert into messages (conversation_id, role, content, status, created_at, reply_to)
         values ($1, 'assistant', '', 'streaming', now(), $2) returning id
       )
       insert into turns (message_id, conversation_id, user_id, state, approve_tools, owner, lease_until, is_stop_asked, began_at, active_ms)
       select id, $1, $3, 'calling', $4, $5, now() + $6::interval, false, now(), 0 from answer returning message_id as id`,
      [conversationId, questionId, userId, approveTools, owner, leaseText],
    );
    return {
      messageId: row!.id,
      conversationId,
      questionId,
      question,
      approveTools,
      progress: { state: 'calling', steps: [], inputTokens: 0, outputTokens: 0 },
      activeMs: 0,
      nextEvent: 1,
    };
  }

  /** Answers the last message of the user again. */
  async function answerAnew(sql: SqlTransaction, beginning: Beginning, conversationId: bigint): Promise<OwnedTurn> {
    await requireQuiet(sql, conversationId);
    const [last] = await sql.sql<{ id: bigint; content: string }>(
      `select id, content from messages where conversation_id = $1 and role = 'user' order by id desc limit 1`,
      [conversationId],
    );
    if (last === undefined) {
      throw new HubError('FAILED_PRECONDITION', 'NOTHING_TO_REGENERATE', 'There is no message that could be answered');
    }
    await keepRate(sql, beginning.userId);
    const turn = await insertTurn(sql, beginning, { conversationId, questionId: last.id, question: last.content });
    await sql.sql(
      `update messages set replaced_by = $3
       where conversation_id = $1 and reply_to = $2 and role = 'assistant' and id <> $3`,
      [conversationId, last.id, turn.messageId],
    );
    await sql.sql('update conversations set updated_at = now() where id = $1', [conversationId]);
    return turn;
  }

  async function lockConversation(sql: SqlTransaction, id: bigint, userId: string): Promise<void> {
    const rows = await sql.sql('select id from conversations where id = $1 and user_id = $2 for update', [id, userId]);
    if (rows.length === 0) throw conversationNotFound();
  }

  /** The answer to a request whose Idempotency-Key came before: the one from then, or a new one if that has failed. */
  async function answerOfKey(
    sql: SqlTransaction,
    beginning: Beginning,
    key: IdempotencyKey,
  ): Promise<{ turn: OwnedTurn } | { known: bigint } | undefined> {
    const known = await findKey(sql, key);
    if (known === undefined) return undefined;
    if (!known.canBeRepeated) return { known: known.messageId };
    await lockConversation(sql, known.conversationId, beginning.userId);
    const turn = await answerAnew(sql, beginning, known.conversationId);
    await keepKey(sql, key, turn.messageId);
    return { turn };
  }

  return {
    /**
     * Begins to answer a message, in a new conversation or in one that goes on.
     *
     * @returns the turn; or, where its idempotency key came before, the answer from then
     * @throws LostTurn if a turn has to be ended before
     * @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND`, ABORTED `TURN_IN_PROGRESS` or `IDEMPOTENCY_KEY_REUSED`,
     *   RESOURCE_EXHAUSTED `RATE_LIMITED`
     */
    async begin(wanted: NewMessage): Promise<{ turn: OwnedTurn } | { known: bigint }> {
      return unlessRaced(() =>
        db.transaction(async (sql) => {
          const { userId, idempotency } = wanted;
          const key = idempotency && { userId, ...idempotency };
          if (key !== undefined) {
            await lockKey(sql, key);
            const known = await answerOfKey(sql, wanted, key);
            if (known !== undefined) return known;
          }
          await keepRate(sql, userId);
          let { conversationId } = wanted;
          if (conversationId === undefined) {
            const [row] = await sql.sql<{ id: bigint }>(
              `insert into conversations (user_id, num_id, title, message_count, created_at, updated_at)
               values ($1, $2, $3, 2, now(), now()) returning id`,
              [userId, wanted.numId, titleOf(wanted.message)],
            );
            conversationId = row!.id;
          } else {
            await lockConversation(sql, conversationId, userId);
            await requireQuiet(sql, conversationId);
            await sql.sql(
              'update conversations set message_count = message_count + 2, updated_at = now() where id = $1',
              [conversationId],
            );
          }
          const [question] = await sql.sql<{ id: bigint }>(
            `insert into messages (conversation_id, role, content, status, created_at)
             values ($1, 'user', $2, 'completed', now()) returning id`,
            [conversationId, wanted.message],
          );
          const turn = await insertTurn(sql, wanted, {
            conversationId,
            questionId: question!.id,
            question: wanted.message,
          });
          if (key !== undefined) await keepKey(sql, key, turn.messageId);
          return { turn };
        }),
      );
    },

    /** Answers the last message of the user anew. @throws as `begin`, and HubError FAILED_PRECONDITION `NOTHING_TO_REGENERATE` */
    async regenerate(beginning: Beginning, conversationId: bigint): Promise<OwnedTurn> {
      return unlessRaced(() =>
        db.transaction(async (sql) => {
          await lockConversation(sql, conversationId, beginning.userId);
          return answerAnew(sql, beginning, conversationId);
        }),
      );
    },

    /**
     * Takes the decision of the user about a tool call, and the turn.
     *
     * @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND` or `APPROVAL_NOT_FOUND`, ABORTED `ALREADY_DECIDED`
     */
    async decide(
      { userId, owner }: { userId: string; owner: string },
      conversationId: bigint,
      approvalId: string,
      isApproved: boolean,
    ): Promise<OwnedTurn> {
      return db.transaction(async (sql) => {
        await lockConversation(sql, conversationId, userId);
        const [answer] = await sql.sql<{
          id: bigint;
          reply_to: bigint;
          steps: Step[];
          input_tokens: number | null;
          output_tokens: number | null;
        }>(
          `select id, reply_to, steps, input_tokens, output_tokens from messages
           where conversation_id = $1 and role = 'assistant'
             and jsonb_path_exists(steps, '$[*].calls[*].approval.id ? (@ == $id)', jsonb_build_object('id', $2::text))`,
          [conversationId, approvalId],
        );
        const call = answer?.steps.flatMap(({ calls }) => calls).find(({ approval }) => approval?.id === approvalId);
        if (answer === undefined || call?.approval === undefined) {
          throw new HubError('NOT_FOUND', 'APPROVAL_NOT_FOUND', 'There is no such approval');
        }
        const [turn] = await sql.sql<{ approve_tools: boolean; active_ms: number; next: bigint }>(
          `update turns t set state = 'acting', owner = $2, lease_until = now() + $3::interval, is_stop_asked = false
           where message_id = $1 and state = 'waiting'
           returning approve_tools, active_ms,
             (select coalesce(max(number), 0) + 1 from turn_events e where e.message_id = t.message_id) as next`,
          [answer.id, owner, leaseText],
        );
        if (turn === undefined || call.approval.isApproved !== undefined || !isNext(answer.steps, approvalId)) {
          throw new HubError(
            'ABORTED',
            'ALREADY_DECIDED',
            'This approval was decided already, or its answer has ended',
          );
        }
        call.approval = { ...call.approval, isApproved };
        await sql.sql('update messages set steps = $2 where id = $1', [answer.id, JSON.stringify(answer.steps)]);
        const [question] = await sql.sql<{ content: string }>('select content from messages where id = $1', [
          answer.reply_to,
        ]);
        return {
          messageId: answer.id,
          conversationId,
          questionId: answer.reply_to,
          question: question!.content,
          approveTools: turn.approve_tools,
          progress: {
            state: 'acting' as const,
            steps: answer.steps,
            inputTokens: answer.input_tokens ?? 0,
            outputTokens: answer.output_tokens ?? 0,
          },
          activeMs: turn.active_ms,
          nextEvent: Number(turn.next),
        };
      });
    },
  };
}

/** Whether it is this approval that a turn waits for: the first of its calls that has no outcome. */
function isNext(steps: readonly Step[], approvalId: string): boolean {
  const waiting = steps.at(-1)?.calls.find(({ outcome }) => outcome === undefined);
  return waiting?.approval?.id === approvalId;
}

/** Of two turns that begin at once in one conversation the second is refused. */
async function unlessRaced<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if ((error as { code?: unknown }).code === uniqueViolation) throw turnInProgress();
    throw error;
  }
}
