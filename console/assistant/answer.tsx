import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect } from 'preact/hooks';
import type { Approval, HistoryMessage } from '#client/assistant';
import { wordsFor } from '../shell/errors.ts';
import { AgainIcon, BackIcon, ToolIcon } from '../shell/icons.tsx';
import { clockTime, fullTime } from '../shell/times.ts';
import { blocksOf } from './blocks.ts';
import type { Chat } from './chat.ts';
import { piecesOf, type Piece, type ShownCall, type Turn } from './turn.ts';
import { approves } from './composer.tsx';

/** An answer: under way, or as the history has it. What a model or a tool says is only ever text. */
export function AnswerItem({
  chat,
  row,
  turn,
  isLast,
  grown,
  goOn,
}: {
  chat: Chat;
  /** Undefined while the history does not have it. */
  row: HistoryMessage | undefined;
  /** If it is under way. */
  turn: Turn | undefined;
  /** Whether it is the answer to the last question. */
  isLast: boolean;
  /** Called when it may have become longer. */
  grown: () => void;
  /** Called when something was pressed that goes away with that. */
  goOn: () => void;
}) {
  // What it says changes more often than the conversation does.
  if (turn !== undefined) void chat.progress.value;
  useLayoutEffect(grown);
  const versions = row === undefined ? [] : [...row.siblings, row];
  /** Which of several answers to the same question is shown; the newest by default. */
  const chosen = useSignal<number | undefined>(undefined);
  const index = Math.min(chosen.value ?? versions.length - 1, versions.length - 1);
  const shown = turn === undefined ? versions[index] : undefined;
  const pieces = shown === undefined ? (turn?.pieces ?? []) : piecesOf(shown, chat.followed(shown.id));
  const { approvals = [] } = turn ?? {};
  return (
    <article class="message answer" aria-label="Answer of the assistant" aria-busy={turn !== undefined}>
      {pieces.map((piece, place) => (
        // Pieces only ever come at the end.
        <PieceItem key={place} piece={piece} />
      ))}
      {approvals.map((approval) => (
        <ApprovalItem
          key={approval.approval_id}
          approval={approval}
          isAsked={turn!.isAsked}
          decide={(approve) => {
            void chat.decide(approval, approve);
            goOn();
          }}
        />
      ))}
      {turn !== undefined && approvals.length === 0 && (
        <UnderWay last={pieces.at(-1)} seen={turn.seen} isLost={turn.isLost} />
      )}
      {shown !== undefined && (
        <>
          <Note row={shown} chat={chat} />
          <footer>
            {versions.length > 1 && (
              <Versions index={index} count={versions.length} choose={(place) => (chosen.value = place)} />
            )}
            {isLast && chat.turn === undefined && (
              <button
                type="button"
                class="button plain again"
                onClick={() => {
                  chosen.value = undefined;
                  void chat.regenerate(approves.peek());
                  goOn();
                }}
              >
                <AgainIcon />
                Answer again
              </button>
            )}
            {shown.usage !== null && shown.model !== '' && (
              <span>
                <span dir="auto">{shown.model}</span>, {shown.usage.total_tokens} tokens
              </span>
            )}
            <time dateTime={shown.created_at} title={fullTime(shown.created_at)}>
              {clockTime(shown.created_at)}
            </time>
          </footer>
        </>
      )}
    </article>
  );
}

function PieceItem({ piece }: { piece: Piece }) {
  if (piece.kind === 'call') return <CallItem call={piece.call} />;
  return (
    <>
      {blocksOf(piece.text).map(({ kind, text, language }, place) =>
        kind === 'prose' ? (
          <p key={place} class="text" dir="auto">
            {text}
          </p>
        ) : (
          <figure key={place} class="code">
            <figcaption class="quiet small">{language === '' ? 'Code' : language}</figcaption>
            <pre dir="ltr">
              <code>{text}</code>
            </pre>
          </figure>
        ),
      )}
    </>
  );
}

/** The call of a tool: folded, what it was called with and what it has answered. */
function CallItem({ call }: { call: ShownCall }) {
  const { server, name, is_error, isRunning, duration_ms } = call;
  const words = isRunning ? 'Being called…' : is_error ? 'Failed' : `Done in ${duration_ms} ms`;
  return (
    <details class={is_error ? 'call failed' : 'call'} data-tool={name}>
      <summary>
        <ToolIcon />
        <span class="name">{name}</span>
        <span class="quiet small">{server}</span>
        <span class="outcome small">{words}</span>
      </summary>
      <dl>
        <dt>Arguments</dt>
        <dd>
          <Data value={call.arguments ?? {}} />
        </dd>
        {!isRunning && (
          <>
            <dt>{is_error ? 'Error' : 'Result'}</dt>
            <dd>
              <Data value={call.result} />
            </dd>
          </>
        )}
      </dl>
    </details>
  );
}

/** Characters of what a tool was given or has answered that are shown at once. */
const shownAtOnce = 3_000;

function Data({ value }: { value: unknown }) {
  const isWhole = useSignal(false);
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  const isCut = !isWhole.value && text.length > shownAtOnce;
  return (
    <>
      <pre class="data" dir="auto">
        {isCut ? `${text.slice(0, shownAtOnce).toWellFormed()}…` : text}
      </pre>
      {isCut && (
        <button type="button" class="button plain" onClick={() => (isWhole.value = true)}>
          Show all of it
        </button>
      )}
    </>
  );
}

/** A tool call that waits for the user. */
function ApprovalItem({
  approval: { server, name, arguments: given },
  isAsked,
  decide,
}: {
  approval: Approval;
  isAsked: boolean;
  decide: (approve: boolean) => void;
}) {
  const question = `May the assistant call ${name}?`;
  return (
    <div class="approval" role="group" aria-label={question}>
      <p>
        <b>{question}</b> <span class="small">{server}</span>
      </p>
      <Data value={given ?? {}} />
      <div class="row">
        <button type="button" class="button main" disabled={isAsked} onClick={() => decide(true)}>
          Approve
        </button>
        <button type="button" class="button" disabled={isAsked} onClick={() => decide(false)}>
          Deny
        </button>
      </div>
    </div>
  );
}

/** Milliseconds without anything new after which an answer is called slow. */
const slow = 10_000;

/** That more is to come. */
function UnderWay({ last, seen, isLost }: { last: Piece | undefined; seen: number; isLost: boolean }) {
  const isSlow = useSignal(false);
  useEffect(() => {
    isSlow.value = false;
    const timer = setTimeout(() => (isSlow.value = true), slow);
    return () => clearTimeout(timer);
  }, [seen]);
  if (isLost) return <p class="notice warn">The connection is lost. The answer goes on when it is back.</p>;
  return (
    <p class="under-way quiet small">
      <span class="busy" aria-hidden="true" />
      {last?.kind === 'text'
        ? 'Answering…'
        : last?.call.isRunning === true
          ? `Calling ${last.call.name}…`
          : 'Thinking…'}
      {isSlow.value && ' This takes longer than usual.'}
    </p>
  );
}

/** How an answer ended, where it did not end as it should. */
function Note({ row: { id, status }, chat }: { row: HistoryMessage; chat: Chat }) {
  const { finish_reason, error } = chat.followed(id) ?? {};
  if (status === 'failed') {
    return <p class="notice bad">{error === undefined ? 'The answer has failed.' : wordsFor(error)}</p>;
  }
  if (status === 'stopped') return <p class="notice">Stopped.</p>;
  if (finish_reason === 'length') return <p class="notice">It ends here: an answer may not be longer.</p>;
  if (finish_reason === 'max_steps')
    return <p class="notice">It ends here: an answer may not take more steps, or longer.</p>;
  return null;
}

function Versions({ index, count, choose }: { index: number; count: number; choose: (index: number) => void }) {
  return (
    <span class="versions" role="group" aria-label="Answers to the same message">
      <button
        type="button"
        class="button plain icon"
        aria-label="The answer before"
        aria-disabled={index === 0}
        onClick={() => index > 0 && choose(index - 1)}
      >
        <BackIcon />
      </button>
      <span role="status">
        {index + 1} of {count}
      </span>
      <button
        type="button"
        class="button plain icon next"
        aria-label="The answer behind it"
        aria-disabled={index === count - 1}
        onClick={() => index < count - 1 && choose(index + 1)}
      >
        <BackIcon />
      </button>
    </span>
  );
}
