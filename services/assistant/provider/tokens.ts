import type { PromptMessage, ToolDefinition } from './provider.ts';

/** How many tokens a text is, about, where nobody has counted them: one for each four bytes. */
export function tokensIn(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

/** Tokens that each message takes beside its text. */
const aroundMessage = 4;

/** How many tokens a message of a prompt is, about. */
export function tokensInMessage(message: PromptMessage): number {
  const requests = message.role === 'assistant' ? message.toolRequests : [];
  return (
    aroundMessage +
    tokensIn(message.content) +
    requests.reduce((sum, { name, arguments: given }) => sum + aroundMessage + tokensIn(name) + tokensIn(given), 0)
  );
}

/** How many tokens a prompt is, about. */
export function tokensInPrompt(messages: readonly PromptMessage[], tools: readonly ToolDefinition[]): number {
  return (
    messages.reduce((sum, message) => sum + tokensInMessage(message), 0) +
    tools.reduce((sum, tool) => sum + aroundMessage + tokensIn(JSON.stringify(tool)), 0)
  );
}
