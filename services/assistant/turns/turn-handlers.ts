import type { AssistantServiceService, ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import type { UserCall, UserStreamCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Streams } from '../streams.ts';
import type { Following, Turns } from './turns.ts';
import type { Asker } from './work.ts';

type Own = 'chat' | 'streamAnswer' | 'stopAnswer' | 'regenerateAnswer' | 'decideApproval';

/** No answer has as many events. */
const maxEvents = 1_000_000_000n;

/** RPCs about answers. That the conversation is the caller's is made sure of before. */
export function turnHandlers(turns: Turns, streams: Streams): Pick<Handlers<AssistantServiceService>, Own> {
  /** Begins an answer, and follows it as its caller wants: by all its events, or by the last one alone. */
  async function* answer(
    isStream: boolean,
    { caller, signal, begin }: UserStreamCall,
    beginAnswer: () => Promise<Following>,
  ): AsyncGenerator<ChatResponse> {
    if (!isStream) {
      yield await turns.outcome(await beginAnswer(), signal);
      return;
    }
    using _open = streams.open(caller.userId);
    const following = await beginAnswer();
    begin();
    yield* turns.follow(following, signal);
  }

  return {
    chat({ conversationId, message, stream, approveTools, idempotencyKey }, call: UserStreamCall) {
      return answer(stream, call, () =>
        turns.chat({ conversationId, message, approveTools, idempotencyKey }, askerOf(call)),
      );
    },

    regenerateAnswer({ conversationId, stream, approveTools }, call: UserStreamCall) {
      return answer(stream, call, () => turns.regenerate(conversationId, approveTools, askerOf(call)));
    },

    decideApproval({ conversationId, approvalId, approve, stream }, call: UserStreamCall) {
      return answer(stream, call, () => turns.decide(conversationId, approvalId, approve === true, askerOf(call)));
    },

    async *streamAnswer({ conversationId, lastEventId }, { caller, signal, begin }: UserStreamCall) {
      using _open = streams.open(caller.userId);
      // Of no answer, as every number beyond those that an answer has.
      const lastSeen = lastEventId > maxEvents ? maxEvents : lastEventId;
      const following = await turns.resume(conversationId, Number(lastSeen));
      if (following === undefined) return;
      for await (const event of turns.follow(following, signal)) {
        begin();
        yield event;
      }
    },

    async stopAnswer({ conversationId }, _call: UserCall) {
      return { stopped: await turns.stop(conversationId) };
    },
  };
}

function askerOf({ caller, requestId, credentials }: UserStreamCall): Asker {
  const { userId, numId, username } = caller;
  return { userId, numId, username, requestId, credentials };
}
