import { z } from 'zod';
import { HubError, invalidFields, type FieldViolation } from '#lib/errors.ts';
import type { PromptMessage, ToolDefinition } from '../provider/provider.ts';
import { toolContent } from '../provider/tool-content.ts';
import { maxJsonDepth, isShallow } from '../turns/tool-arguments.ts';

/** The parts of a Chat Completions request (OpenAI's API) that the assistant uses. */
export interface CompletionRequest {
  model: string;
  messages: PromptMessage[];
  /** Tools that the client calls by itself. */
  tools: ToolDefinition[];
  /** Members that are passed on to the model. */
  options: Record<string, unknown>;
  /** OpenAI's `tool_choice` for the first step; undefined leaves it to the model. */
  toolChoice: unknown;
  stream: boolean;
  /** Whether a stream ends with the usage. */
  includeUsage: boolean;
}

const maxMessages = 10_000;
const maxTools = 128;

const textContent = z.union(
  [z.string(), z.array(z.looseObject({ type: z.literal('text'), text: z.string() })).min(1)],
  { error: 'must be a text, or a list of parts of the type `text`: there is no other kind here' },
);
const saidContent = z.union(
  [
    z.string(),
    z.array(
      z.discriminatedUnion('type', [
        z.looseObject({ type: z.literal('text'), text: z.string() }),
        z.looseObject({ type: z.literal('refusal'), refusal: z.string() }),
      ]),
    ),
  ],
  { error: 'must be a text, or a list of parts of the types `text` and `refusal`' },
);
const functionName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'must be 1 to 64 letters, digits, `_` or `-`');

const message = z.discriminatedUnion(
  'role',
  [
    z.looseObject({ role: z.literal('system'), content: textContent }),
    z.looseObject({ role: z.literal('developer'), content: textContent }),
    z.looseObject({ role: z.literal('user'), content: textContent }),
    z.looseObject({
      role: z.literal('assistant'),
      content: saidContent.nullish(),
      refusal: z.string().nullish(),
      tool_calls: z
        .array(
          z.looseObject({
            id: z.string().min(1),
            type: z.literal('function').default('function'),
            function: z.looseObject({ name: z.string().min(1), arguments: z.string() }),
          }),
        )
        .nullish(),
    }),
    z.looseObject({ role: z.literal('tool'), tool_call_id: z.string().min(1), content: textContent }),
  ],
  { error: 'must be one of `system`, `developer`, `user`, `assistant` and `tool`' },
);

const schema = z.looseObject({
  model: z.string().min(1),
  messages: z.array(message).min(1).max(maxMessages),
  tools: z
    .array(
      z.looseObject({
        type: z.literal('function'),
        function: z.looseObject({
          name: functionName,
          description: z.string().nullish(),
          parameters: z.record(z.string(), z.unknown()).nullish(),
        }),
      }),
    )
    .max(maxTools)
    .nullish(),
  tool_choice: z
    .union(
      [
        z.enum(['none', 'auto', 'required']),
        z.looseObject({ type: z.literal('function'), function: z.looseObject({ name: functionName }) }),
      ],
      { error: 'must be `none`, `auto`, `required`, or the name of one of `tools`' },
    )
    .nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(4)]).nullish(),
  seed: z.int().nullish(),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)).nullish(),
  response_format: z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) }).nullish(),
  reasoning_effort: z.string().max(20).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  // Members that can't be ignored, since the answer would not be the requested one.
  n: z.literal(1, 'must be 1: there is one answer').nullish(),
  logprobs: z.literal(false, 'must be false: log probabilities are not supported').nullish(),
  modalities: z.array(z.literal('text', 'must be `text`')).nullish(),
  functions: z.never('is not supported: use `tools`').nullish(),
  function_call: z.never('is not supported: use `tool_choice`').nullish(),
});

/** Members that are passed on to the model unchecked. */
const handedOn = [
  'temperature',
  'top_p',
  'presence_penalty',
  'frequency_penalty',
  'stop',
  'seed',
  'logit_bias',
  'response_format',
  'reasoning_effort',
  'parallel_tool_calls',
] as const;

type Body = z.output<typeof schema>;

/**
 * Reads the body of a request. Members of OpenAI's API that are not supported are ignored, as other servers do.
 *
 * @throws HubError INVALID_ARGUMENT that names the wrong members
 */
export function readCompletionRequest(bytes: Uint8Array): CompletionRequest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw invalidBody('is not valid JSON');
  }
  if (!isShallow(value, maxJsonDepth)) {
    throw invalidBody(`has more than ${maxJsonDepth} levels of objects and lists`);
  }
  const read = schema.safeParse(value);
  if (!read.success) {
    throw invalidFields(
      read.error.issues.map(({ path, message: description }) => ({ field: fieldOf(path) || 'body', description })),
    );
  }
  const body = read.data;
  const problems = [...conversationProblems(body), ...toolProblems(body)];
  if (problems.length > 0) throw invalidFields(problems);
  const limits = [body.max_tokens, body.max_completion_tokens].filter((limit) => typeof limit === 'number');
  return {
    model: body.model,
    messages: body.messages.map(promptMessage),
    tools: (body.tools ?? []).map(({ function: { name, description, parameters } }) => ({
      name,
      description: description ?? '',
      parameters: parameters ?? { type: 'object', properties: {} },
    })),
    options: {
      ...Object.fromEntries(handedOn.flatMap((name) => (body[name] == null ? [] : [[name, body[name]]]))),
      ...(limits.length > 0 ? { max_tokens: Math.min(...limits) } : {}),
    },
    toolChoice: body.tool_choice ?? undefined,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
  };
}

function invalidBody(description: string): HubError {
  const fields = [{ field: 'body', description }];
  return new HubError('INVALID_ARGUMENT', 'INVALID_ARGUMENT', `The body ${description}`, { fields });
}

function fieldOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>((before, part) => {
    if (typeof part === 'number') return `${before}[${part}]`;
    return before === '' ? String(part) : `${before}.${String(part)}`;
  }, '');
}

/** Models require the result of each tool call right after it, and a call for each result. */
function conversationProblems({ messages }: Body): FieldViolation[] {
  const problems: FieldViolation[] = [];
  let open = new Set<string>();
  const close = (index: number) => {
    const [id] = open;
    if (id !== undefined) {
      problems.push({ field: `messages[${index}]`, description: `must be the result of the tool call ${id}` });
    }
    open = new Set();
  };
  for (const [index, each] of messages.entries()) {
    if (each.role === 'tool') {
      if (!open.delete(each.tool_call_id)) {
        const description = 'must be the id of a call in the message of the assistant before it';
        problems.push({ field: `messages[${index}].tool_call_id`, description });
      }
      continue;
    }
    close(index);
    if (each.role === 'assistant') open = new Set((each.tool_calls ?? []).map(({ id }) => id));
  }
  close(messages.length);
  return problems;
}

function toolProblems({ tools, tool_choice: choice }: Body): FieldViolation[] {
  const names = (tools ?? []).map(({ function: { name } }) => name);
  const problems = names.flatMap((name, index) =>
    names.indexOf(name) === index
      ? []
      : [{ field: `tools[${index}].function.name`, description: 'is the name of another tool' }],
  );
  if (typeof choice === 'object' && choice !== null && !names.includes(choice.function.name)) {
    problems.push({ field: 'tool_choice.function.name', description: 'must be the name of one of `tools`' });
  }
  return problems;
}

function promptMessage(each: Body['messages'][number]): PromptMessage {
  switch (each.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content: textIn(each.content) };
    case 'user':
      return { role: 'user', content: textIn(each.content) };
    case 'tool':
      return {
        role: 'tool',
        toolRequestId: each.tool_call_id,
        content: toolContent({ result: jsonOr(textIn(each.content)), isError: false }),
      };
    case 'assistant':
      return {
        role: 'assistant',
        content: textIn(each.content ?? each.refusal ?? ''),
        toolRequests: (each.tool_calls ?? []).map(({ id, function: { name, arguments: given } }) => ({
          id,
          name,
          arguments: given,
        })),
      };
  }
}

function textIn(content: string | readonly ({ text: string } | { refusal: string })[]): string {
  if (typeof content === 'string') return content;
  return content.map((part) => ('text' in part ? part.text : part.refusal)).join('');
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
