import type { Step } from '../conversations/conversation.ts';
import type { PromptMessage } from '../provider/provider.ts';
import { tokensIn, tokensInMessage } from '../provider/tokens.ts';
import { toolContentRule } from '../provider/tool-content.ts';
import { messagesOfStep } from './agent.ts';

/** What was said before: a message of the user, and the answer to it. */
interface Exchange {
  question: string;
  steps: readonly Step[];
}

/** The system message. */
export function systemMessage(username: string): PromptMessage {
  return {
    role: 'system',
    content: [
      `You are the assistant of the user ${JSON.stringify(username)} in Chat4All, a hub for messages. You keep the user's tasks and send and read messages, only through your tools, and only for this user.`,
      'Answer in the language of the user, briefly. Say what you have done, and what has failed. Never say that something was done unless a tool has said so.',
      toolContentRule,
    ].join('\n'),
  };
}

/** Stands for an answer without text: some models accept no two user messages in a row. */
const noAnswer = '(There was no answer.)';

/**
 * What the model reads: the system's message, as many whole exchanges as fit, the newest of them, and the message that is to be
 * answered, which is always there.
 *
 * @param before the exchanges, the newest first; read only as far as they fit
 * @param tokens how many tokens there may be in all, about
 */
export async function promptMessages(
  system: PromptMessage,
  before: AsyncIterable<Exchange>,
  message: string,
  tokens: number,
): Promise<PromptMessage[]> {
  const question: PromptMessage = { role: 'user', content: message };
  let left = tokens - tokensInMessage(system) - tokensIn(message);
  const exchanges: PromptMessage[][] = [];
  for await (const exchange of before) {
    const messages = messagesOf(exchange);
    left -= messages.reduce((sum, each) => sum + tokensInMessage(each), 0);
    if (left < 0) break;
    exchanges.push(messages);
  }
  return [system, ...exchanges.reverse().flat(), question];
}

function messagesOf({ question, steps }: Exchange): PromptMessage[] {
  const said = steps.flatMap((step) => messagesOfStep(step)).filter((message) => !isSilent(message));
  // An answer that ended without a word, or behind a tool, has nothing of its own to close with.
  const closing: PromptMessage[] =
    said.at(-1)?.role === 'assistant' ? [] : [{ role: 'assistant', content: noAnswer, toolRequests: [] }];
  return [{ role: 'user', content: question }, ...said, ...closing];
}

function isSilent(message: PromptMessage): boolean {
  return message.role === 'assistant' && message.content === '' && message.toolRequests.length === 0;
}
