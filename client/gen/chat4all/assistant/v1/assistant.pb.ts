// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** Who said a message. */
export const Role = {
  /** The user. */
  ROLE_USER: 'user',
  /** The assistant. */
  ROLE_ASSISTANT: 'assistant',
} as const;
export type Role = (typeof Role)[keyof typeof Role];

/** What has become of a message. */
export const MessageStatus = {
  /** It is as it was meant to be. */
  MESSAGE_STATUS_COMPLETED: 'completed',
  /** The user has stopped it. */
  MESSAGE_STATUS_STOPPED: 'stopped',
  /** Something went wrong. */
  MESSAGE_STATUS_FAILED: 'failed',
  /** It is still being said, or waits for an approval. */
  MESSAGE_STATUS_STREAMING: 'streaming',
} as const;
export type MessageStatus = (typeof MessageStatus)[keyof typeof MessageStatus];

/** Why an answer is as long as it is. */
export const FinishReason = {
  /** It is complete. */
  FINISH_REASON_STOP: 'stop',
  /** The model may not say more at once. */
  FINISH_REASON_LENGTH: 'length',
  /** The model wanted more steps, or more time, than a turn may have. */
  FINISH_REASON_MAX_STEPS: 'max_steps',
  /** The user has stopped it. */
  FINISH_REASON_STOPPED: 'stopped',
  /** It goes on once the user has decided about `approvals`. */
  FINISH_REASON_APPROVAL: 'approval',
} as const;
export type FinishReason = (typeof FinishReason)[keyof typeof FinishReason];

/** Which tasks. */
export const TaskFilter = {
  /** All of them. */
  TASK_FILTER_ALL: 'all',
  /** Those that are to be done. */
  TASK_FILTER_PENDING: 'pending',
  /** Those that are done. */
  TASK_FILTER_COMPLETED: 'completed',
} as const;
export type TaskFilter = (typeof TaskFilter)[keyof typeof TaskFilter];

/** By what tasks are sorted. */
export const TaskSort = {
  /** When they were made. */
  TASK_SORT_CREATED_AT: 'created_at',
  /** When they were changed last. */
  TASK_SORT_UPDATED_AT: 'updated_at',
  /** Their titles. */
  TASK_SORT_TITLE: 'title',
} as const;
export type TaskSort = (typeof TaskSort)[keyof typeof TaskSort];

/** In which direction tasks are sorted. */
export const SortOrder = {
  /** Upwards. */
  SORT_ORDER_ASC: 'asc',
  /** Downwards. */
  SORT_ORDER_DESC: 'desc',
} as const;
export type SortOrder = (typeof SortOrder)[keyof typeof SortOrder];

/** What model calls have used. */
export type Usage = {
  /** Tokens that were read. */
  input_tokens: number;
  /** Tokens that were written. */
  output_tokens: number;
  /** Both together. */
  total_tokens: number;
};

/** A call of a tool. */
export type ToolCall = {
  /** The call's id, unique in its conversation. */
  id: string;
  /** The MCP server of the tool. */
  server: string;
  /** The tool's name there. */
  name: string;
  /** What it was given. */
  arguments: Record<string, unknown> | null;
  /**
   * What the tool has answered; null as long as it has not. Of a call that was cut off, since the answer ended before:
   * a sentence that says so.
   */
  result: unknown;
  /** Whether it failed, or was cut off: then it may have had its effect. */
  is_error: boolean;
  /** Milliseconds from the call to its result. */
  duration_ms: number;
};

/** A tool call that waits for the user. */
export type Approval = {
  /** By which the user decides. */
  approval_id: string;
  /** The tool call's id. */
  id: string;
  /** The MCP server of the tool. */
  server: string;
  /** The tool's name there. */
  name: string;
  /** What it will be given. */
  arguments: Record<string, unknown> | null;
};

/** An answer of the assistant. */
export type Answer = {
  /** The conversation. */
  conversation_id: number;
  /** What the assistant says: the text of all steps, in order. */
  response: string;
  /** The tools that it has called, in order. */
  tool_calls: ToolCall[];
  /** The id of the answer in the history. */
  message_id: number;
  /** The model. */
  model: string;
  /** What it has used. */
  usage: Usage | null;
  /** Why it ends. */
  finish_reason: FinishReason;
  /** With `approval` the tool calls that wait for the user. */
  approvals: Approval[];
};

/** The beginning of an answer. */
export type Start = {
  /** The conversation. */
  conversation_id: number;
  /** The id that the answer has in the history. */
  message_id: number;
};

/** A piece of what the assistant says. */
export type TextDelta = {
  /** The piece. */
  delta: string;
};

/** A tool is called. */
export type ToolCallStarted = {
  /** The call's id. */
  id: string;
  /** The MCP server of the tool. */
  server: string;
  /** The tool's name there. */
  name: string;
  /** What it is given. */
  arguments: Record<string, unknown> | null;
};

/** A tool has answered. */
export type ToolCallResult = {
  /** The call's id. */
  id: string;
  /** What it has answered. */
  result: unknown;
  /** Whether it failed. */
  is_error: boolean;
  /** Milliseconds from the call to its result. */
  duration_ms: number;
};

/** What the user says. */
export type ChatRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation that goes on; a new one if it is missing. */
  conversation_id?: number | null;
  /** The text, 1 to 32,000 characters, not only white space. */
  message: string;
  /** Whether tools that destroy something wait for the user. */
  approve_tools?: boolean;
  /** A key by which a repeated request is known: 1 to 255 characters. Over HTTP the header Idempotency-Key. */
  idempotency_key?: string;
};

/** An event of an answer. */
export type ChatResponse = wire.EventOf<number, {
  /** The answer begins. */
  start: Start;
  /** A piece of text. */
  text: TextDelta;
  /** A tool is called. */
  tool_call: ToolCallStarted;
  /** A tool has answered. */
  tool_result: ToolCallResult;
  /** A tool call waits for the user. */
  approval: Approval;
  /** The answer is complete, or waits for the user. */
  finish: Answer;
  /** The user has stopped the answer. */
  stopped: Answer;
}>;

/** Which conversations to list. */
export type ListConversationsRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** How many at most, 1 to 100; 20 if it is missing. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** A conversation. */
export type Conversation = {
  /** Its id. */
  id: number;
  /** What it is about: the beginning of its first message, as long as nobody has said anything else. */
  title: string;
  /** When it began. */
  created_at: string;
  /** When something was said last. */
  updated_at: string;
  /** How many messages it has. */
  message_count: number;
};

/** A part of the caller's conversations. */
export type ListConversationsResponse = {
  /** The conversations. */
  conversations: Conversation[];
  /** How many there are in all. */
  total: number;
  /** How many there may be in the answer. */
  limit: number;
  /** How many were passed over. */
  offset: number;
};

/** Which messages to list. */
export type GetHistoryRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** How many at most, the newest; all if it is missing. */
  limit?: number | null;
  /** Only messages before this one. */
  before_id?: number | null;
};

/** A message of a conversation. */
export type HistoryMessage = {
  /** Its id. */
  id: number;
  /** The conversation. */
  conversation_id: number;
  /** The number of the user whose conversation it is. */
  user_id: number;
  /** Who said it. */
  role: Role;
  /** What was said. */
  content: string;
  /** When. */
  created_at: string;
  /** What has become of it. */
  status: MessageStatus;
  /** The tools that the assistant called for it. */
  tool_calls: ToolCall[];
  /** What an answer has used. */
  usage: Usage | null;
  /** The model that an answer is from. */
  model: string;
  /** Answers to the same message that came before this one, the oldest first. */
  siblings: HistoryMessage[];
};

/** A part of the messages, in their order. */
export type GetHistoryResponse = {
  /** The messages. */
  messages: HistoryMessage[];
};

/** Another title for a conversation. */
export type UpdateConversationRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** The title, 1 to 200 characters, not only white space. */
  title: string;
};

/** The conversation as it is now. */
export type UpdateConversationResponse = {
  /** The conversation. */
  conversation: Conversation;
};

/** The conversation to delete. */
export type DeleteConversationRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
};

/** Nothing. */
export type DeleteConversationResponse = Record<string, never>;

/** Whose answer to follow. */
export type StreamAnswerRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** The last event that the client has seen; 0 if none. Over HTTP the header Last-Event-ID. */
  last_event_id?: number;
};

/** An event of the answer under way. */
export type StreamAnswerResponse = wire.EventOf<number, {
  /** The answer begins. */
  start: Start;
  /** A piece of text. */
  text: TextDelta;
  /** A tool is called. */
  tool_call: ToolCallStarted;
  /** A tool has answered. */
  tool_result: ToolCallResult;
  /** A tool call waits for the user. */
  approval: Approval;
  /** The answer is complete, or waits for the user. */
  finish: Answer;
  /** The user has stopped the answer. */
  stopped: Answer;
}>;

/** Whose answer to end. */
export type StopAnswerRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
};

/** What came of it. */
export type StopAnswerResponse = {
  /** Whether there was an answer under way, which has ended by this. */
  stopped: boolean;
};

/** Where to answer anew. */
export type RegenerateAnswerRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** Whether tools that destroy something wait for the user. */
  approve_tools?: boolean;
};

/** An event of the new answer. */
export type RegenerateAnswerResponse = wire.EventOf<number, {
  /** The answer begins. */
  start: Start;
  /** A piece of text. */
  text: TextDelta;
  /** A tool is called. */
  tool_call: ToolCallStarted;
  /** A tool has answered. */
  tool_result: ToolCallResult;
  /** A tool call waits for the user. */
  approval: Approval;
  /** The answer is complete, or waits for the user. */
  finish: Answer;
  /** The user has stopped the answer. */
  stopped: Answer;
}>;

/** What the user says of a tool call. */
export type DecideApprovalRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** The approval. */
  approval_id: string;
  /** Whether the tool may be called. */
  approve: boolean;
};

/** An event of the answer as it goes on. */
export type DecideApprovalResponse = wire.EventOf<number, {
  /** The answer begins. */
  start: Start;
  /** A piece of text. */
  text: TextDelta;
  /** A tool is called. */
  tool_call: ToolCallStarted;
  /** A tool has answered. */
  tool_result: ToolCallResult;
  /** A tool call waits for the user. */
  approval: Approval;
  /** The answer is complete, or waits for the user. */
  finish: Answer;
  /** The user has stopped the answer. */
  stopped: Answer;
}>;

/** Something to be done. */
export type Task = {
  /** Its id. */
  id: number;
  /** The number of the user whose task it is. */
  user_id: number;
  /** What is to be done. */
  title: string;
  /** More about it; null without. */
  description: string | null;
  /** Whether it is done. */
  completed: boolean;
  /** When it was made. */
  created_at: string;
  /** When it was changed last. */
  updated_at: string;
};

/** Which tasks to list. */
export type ListTasksRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** Which of them: `all`, `pending` or `completed`. */
  status?: TaskFilter;
  /** By what they are sorted. */
  sort_by?: TaskSort;
  /** In which direction. */
  order?: SortOrder;
};

/** A part of the tasks, in their order. */
export type ListTasksResponse = {
  /** The tasks. */
  tasks: Task[];
};

/** A new task. */
export type CreateTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** What is to be done: 1 to 200 characters without the white space around them. */
  title: string;
  /** More about it, at most 1,000 characters. */
  description?: string | null;
};

/** The new task. */
export type CreateTaskResponse = {
  /** The task. */
  task: Task;
};

/** Which task. */
export type GetTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The task. */
  task_id: number;
};

/** The task. */
export type GetTaskResponse = {
  /** The task. */
  task: Task;
};

/** What is to be different. */
export type UpdateTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The task. */
  task_id: number;
  /** What is to be done: 1 to 200 characters without the white space around them. */
  title?: string | null;
  /** More about it, at most 1,000 characters; an empty one takes it away. */
  description?: string | null;
};

/** The task as it is now. */
export type UpdateTaskResponse = {
  /** The task. */
  task: Task;
};

/** Which task. */
export type DeleteTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The task. */
  task_id: number;
};

/** Nothing. */
export type DeleteTaskResponse = Record<string, never>;

/** Which task. */
export type ToggleTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The task. */
  task_id: number;
};

/** The task as it is now. */
export type ToggleTaskResponse = {
  /** The task. */
  task: Task;
};

/** The error codes of `chat`. */
export type ChatCode = 'ANSWER_LOST' | 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'IDEMPOTENCY_KEY_REUSED' | 'NOT_YOUR_PATH' | 'PROVIDER_ERROR' | 'PROVIDER_TIMEOUT' | 'PROVIDER_UNAVAILABLE' | 'RATE_LIMITED' | 'SUBSCRIPTION_REQUIRED' | 'TOKEN_LIMIT_EXCEEDED' | 'TOO_MANY_STREAMS' | 'TURN_IN_PROGRESS' | codes.CommonCode;

/** The error codes of `listConversations`. */
export type ListConversationsCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `getHistory`. */
export type GetHistoryCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `updateConversation`. */
export type UpdateConversationCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `deleteConversation`. */
export type DeleteConversationCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `streamAnswer`. */
export type StreamAnswerCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TOO_MANY_STREAMS' | codes.CommonCode;

/** The error codes of `stopAnswer`. */
export type StopAnswerCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `regenerateAnswer`. */
export type RegenerateAnswerCode = 'ANSWER_LOST' | 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOTHING_TO_REGENERATE' | 'NOT_YOUR_PATH' | 'PROVIDER_ERROR' | 'PROVIDER_TIMEOUT' | 'PROVIDER_UNAVAILABLE' | 'RATE_LIMITED' | 'SUBSCRIPTION_REQUIRED' | 'TOKEN_LIMIT_EXCEEDED' | 'TOO_MANY_STREAMS' | 'TURN_IN_PROGRESS' | codes.CommonCode;

/** The error codes of `decideApproval`. */
export type DecideApprovalCode = 'ALREADY_DECIDED' | 'ANSWER_LOST' | 'APPROVAL_NOT_FOUND' | 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'PROVIDER_ERROR' | 'PROVIDER_TIMEOUT' | 'PROVIDER_UNAVAILABLE' | 'SUBSCRIPTION_REQUIRED' | 'TOKEN_LIMIT_EXCEEDED' | 'TOO_MANY_STREAMS' | codes.CommonCode;

/** The error codes of `listTasks`. */
export type ListTasksCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | codes.CommonCode;

/** The error codes of `createTask`. */
export type CreateTaskCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TOO_MANY_TASKS' | codes.CommonCode;

/** The error codes of `getTask`. */
export type GetTaskCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TASK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `updateTask`. */
export type UpdateTaskCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TASK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `deleteTask`. */
export type DeleteTaskCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TASK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `toggleTask`. */
export type ToggleTaskCode = 'DATABASE_UNAVAILABLE' | 'NOT_YOUR_PATH' | 'TASK_NOT_FOUND' | codes.CommonCode;

/** Conversations with the assistant. `user_id` in each request is the caller's UUID or number. */
export class AssistantService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Says something to the assistant, in a new conversation or in one that goes on, and answers with what it says.
   *
   * The message is kept whatever becomes of the answer. A client that goes away doesn't stop the answer. With an
   * `Idempotency-Key` (gRPC: the field) a repeated request gets the first answer for 24 hours.
   */
  chat(request: ChatRequest, options?: CallOptions): Reply<Answer, ChatCode> {
    return this.#caller.reply<Answer>({ verb: 'POST', path: '/api/{user_id}/chat', body: '*', set: { stream: false }, timeout: 185000 }, request, options);
  }

  /** As `chat`, with the response as events. */
  chatEvents(request: ChatRequest, options?: CallOptions): AsyncGenerator<ChatResponse, void> {
    return this.#caller.events<ChatResponse>({ verb: 'POST', path: '/api/{user_id}/chat', body: '*', set: { stream: true }, hasNumericIds: true }, request, options);
  }

  /** The caller's conversations, those with the newest activity first. */
  listConversations(request: ListConversationsRequest, options?: CallOptions): Reply<ListConversationsResponse, ListConversationsCode> {
    return this.#caller.reply<ListConversationsResponse>({ verb: 'GET', path: '/api/{user_id}/chat', isRepeatable: true }, request, options);
  }

  /** The messages of a conversation, the oldest first: all of them, or the newest `limit`. */
  getHistory(request: GetHistoryRequest, options?: CallOptions): Reply<HistoryMessage[], GetHistoryCode> {
    return this.#caller.reply<HistoryMessage[]>({ verb: 'GET', path: '/api/{user_id}/chat/{conversation_id}/history', isRepeatable: true }, request, options);
  }

  /** Gives a conversation another title. */
  updateConversation(request: UpdateConversationRequest, options?: CallOptions): Reply<Conversation, UpdateConversationCode> {
    return this.#caller.reply<Conversation>({ verb: 'PATCH', path: '/api/{user_id}/chat/{conversation_id}', body: '*', isRepeatable: true }, request, options);
  }

  /** Deletes a conversation with all its messages. An answer under way is stopped. */
  deleteConversation(request: DeleteConversationRequest, options?: CallOptions): Reply<DeleteConversationResponse, DeleteConversationCode> {
    return this.#caller.reply<DeleteConversationResponse>({ verb: 'DELETE', path: '/api/{user_id}/chat/{conversation_id}' }, request, options);
  }

  /**
   * The answer that is under way in a conversation, as events: from its beginning, or behind the event that the client has seen last.
   * Without one there is nothing (204).
   */
  streamAnswer(request: StreamAnswerRequest, options?: CallOptions): AsyncGenerator<StreamAnswerResponse, void> {
    return this.#caller.events<StreamAnswerResponse>({ verb: 'GET', path: '/api/{user_id}/chat/{conversation_id}/stream', isRepeatable: true, hasNumericIds: true }, request, options);
  }

  /** Ends the answer that is under way in a conversation. What was said so far is kept. */
  stopAnswer(request: StopAnswerRequest, options?: CallOptions): Reply<StopAnswerResponse, StopAnswerCode> {
    return this.#caller.reply<StopAnswerResponse>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/stop', body: '*', isRepeatable: true }, request, options);
  }

  /** Answers the last message of the user anew. The answer before is kept as a sibling of the new one; the model doesn't see it. */
  regenerateAnswer(request: RegenerateAnswerRequest, options?: CallOptions): Reply<Answer, RegenerateAnswerCode> {
    return this.#caller.reply<Answer>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/regenerate', body: '*', set: { stream: false }, timeout: 185000 }, request, options);
  }

  /** As `regenerateAnswer`, with the response as events. */
  regenerateAnswerEvents(request: RegenerateAnswerRequest, options?: CallOptions): AsyncGenerator<RegenerateAnswerResponse, void> {
    return this.#caller.events<RegenerateAnswerResponse>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/regenerate', body: '*', set: { stream: true }, hasNumericIds: true }, request, options);
  }

  /**
   * Lets a tool call that waits for the user run, or not, and answers with what comes of it: the finished answer, or the next
   * approval.
   */
  decideApproval(request: DecideApprovalRequest, options?: CallOptions): Reply<Answer, DecideApprovalCode> {
    return this.#caller.reply<Answer>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/approvals/{approval_id}', body: '*', set: { stream: false }, timeout: 185000 }, request, options);
  }

  /** As `decideApproval`, with the response as events. */
  decideApprovalEvents(request: DecideApprovalRequest, options?: CallOptions): AsyncGenerator<DecideApprovalResponse, void> {
    return this.#caller.events<DecideApprovalResponse>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/approvals/{approval_id}', body: '*', set: { stream: true }, hasNumericIds: true }, request, options);
  }
}

/** The caller's tasks. `user_id` in each request is the caller's UUID or number. */
export class TaskService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The tasks. */
  listTasks(request: ListTasksRequest, options?: CallOptions): Reply<Task[], ListTasksCode> {
    return this.#caller.reply<Task[]>({ verb: 'GET', path: '/api/{user_id}/tasks', isRepeatable: true }, request, options);
  }

  /** Makes a task. */
  createTask(request: CreateTaskRequest, options?: CallOptions): Reply<Task, CreateTaskCode> {
    return this.#caller.reply<Task>({ verb: 'POST', path: '/api/{user_id}/tasks', body: '*' }, request, options);
  }

  /** One task. */
  getTask(request: GetTaskRequest, options?: CallOptions): Reply<Task, GetTaskCode> {
    return this.#caller.reply<Task>({ verb: 'GET', path: '/api/{user_id}/tasks/{task_id}', isRepeatable: true }, request, options);
  }

  /** Gives a task another title or description. What the request doesn't say stays as it is. */
  updateTask(request: UpdateTaskRequest, options?: CallOptions): Reply<Task, UpdateTaskCode> {
    return this.#caller.reply<Task>({ verb: 'PUT', path: '/api/{user_id}/tasks/{task_id}', body: '*', isRepeatable: true }, request, options);
  }

  /** Deletes a task. */
  deleteTask(request: DeleteTaskRequest, options?: CallOptions): Reply<DeleteTaskResponse, DeleteTaskCode> {
    return this.#caller.reply<DeleteTaskResponse>({ verb: 'DELETE', path: '/api/{user_id}/tasks/{task_id}' }, request, options);
  }

  /** Completes a task that is pending, and makes a completed one pending again. */
  toggleTask(request: ToggleTaskRequest, options?: CallOptions): Reply<Task, ToggleTaskCode> {
    return this.#caller.reply<Task>({ verb: 'PATCH', path: '/api/{user_id}/tasks/{task_id}/complete', body: '*' }, request, options);
  }
}
