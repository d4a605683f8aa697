// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** The author of a message. */
export const Role = {
  /** The user. */
  ROLE_USER: 'user',
  /** The assistant. */
  ROLE_ASSISTANT: 'assistant',
} as const;
export type Role = (typeof Role)[keyof typeof Role];

/** The status of a message. */
export const MessageStatus = {
  /** It is complete. */
  MESSAGE_STATUS_COMPLETED: 'completed',
  /** The user has stopped it. */
  MESSAGE_STATUS_STOPPED: 'stopped',
  /** It has failed. */
  MESSAGE_STATUS_FAILED: 'failed',
  /** It is in progress, or waits for an approval. */
  MESSAGE_STATUS_STREAMING: 'streaming',
} as const;
export type MessageStatus = (typeof MessageStatus)[keyof typeof MessageStatus];

/** Why an answer ended. */
export const FinishReason = {
  /** It is complete. */
  FINISH_REASON_STOP: 'stop',
  /** The maximum length was reached. */
  FINISH_REASON_LENGTH: 'length',
  /** The maximum number of steps, or the time limit, was reached. */
  FINISH_REASON_MAX_STEPS: 'max_steps',
  /** The user has stopped it. */
  FINISH_REASON_STOPPED: 'stopped',
  /** It continues once the user has decided about `approvals`. */
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

/** The field to sort tasks by. */
export const TaskSort = {
  /** When they were created. */
  TASK_SORT_CREATED_AT: 'created_at',
  /** When they were last changed. */
  TASK_SORT_UPDATED_AT: 'updated_at',
  /** Their titles. */
  TASK_SORT_TITLE: 'title',
} as const;
export type TaskSort = (typeof TaskSort)[keyof typeof TaskSort];

/** In which direction tasks are sorted. */
export const SortOrder = {
  /** Ascending. */
  SORT_ORDER_ASC: 'asc',
  /** Descending. */
  SORT_ORDER_DESC: 'desc',
} as const;
export type SortOrder = (typeof SortOrder)[keyof typeof SortOrder];

/** The tokens used by calls of the model. */
export type Usage = {
  /** Input tokens. */
  input_tokens: number;
  /** Output tokens. */
  output_tokens: number;
  /** The sum of both. */
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
  /** Its arguments. */
  arguments: Record<string, unknown> | null;
  /** The tool's answer; null until then. For a call that was cut off by the end of the answer, a sentence that says so. */
  result: unknown;
  /** Whether it failed or was cut off; a call that was cut off may have had its effect. */
  is_error: boolean;
  /** Milliseconds from the call to its result. */
  duration_ms: number;
};

/** A tool call that waits for the user. */
export type Approval = {
  /** The id for DecideApproval. */
  approval_id: string;
  /** The tool call's id. */
  id: string;
  /** The MCP server of the tool. */
  server: string;
  /** The tool's name there. */
  name: string;
  /** Its arguments. */
  arguments: Record<string, unknown> | null;
};

/** An answer of the assistant. */
export type Answer = {
  /** The conversation. */
  conversation_id: number;
  /** The assistant's text, of all steps, in order. */
  response: string;
  /** The tools that it has called, in order. */
  tool_calls: ToolCall[];
  /** The id of the answer in the history. */
  message_id: number;
  /** The model. */
  model: string;
  /** The tokens used. */
  usage: Usage | null;
  /** Why it ended. */
  finish_reason: FinishReason;
  /** With `approval`, the tool calls that wait for the user. */
  approvals: Approval[];
};

/** The beginning of an answer. */
export type Start = {
  /** The conversation. */
  conversation_id: number;
  /** The id that the answer has in the history. */
  message_id: number;
};

/** A piece of the assistant's text. */
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
  /** Its arguments. */
  arguments: Record<string, unknown> | null;
};

/** A tool has answered. */
export type ToolCallResult = {
  /** The call's id. */
  id: string;
  /** The tool's answer. */
  result: unknown;
  /** Whether it failed. */
  is_error: boolean;
  /** Milliseconds from the call to its result. */
  duration_ms: number;
};

/** A message of the user. */
export type ChatRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation; a new one if not set. */
  conversation_id?: number | null;
  /** The text, 1 to 32,000 characters, not only white space. */
  message: string;
  /** Whether destructive tools wait for the user's approval. */
  approve_tools?: boolean;
  /** Idempotency key, by which a repeated request is recognised: 1 to 255 characters. Over HTTP the header Idempotency-Key. */
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
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A conversation. */
export type Conversation = {
  /** Its id. */
  id: number;
  /** Its title; by default the beginning of its first message. */
  title: string;
  /** When it began. */
  created_at: string;
  /** The time of the last message. */
  updated_at: string;
  /** How many messages it has. */
  message_count: number;
};

/** A part of the caller's conversations. */
export type ListConversationsResponse = {
  /** The conversations. */
  conversations: Conversation[];
  /** The total number. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** Which messages to list. */
export type GetHistoryRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** The maximum number, of the newest; all if not set. */
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
  /** Its author. */
  role: Role;
  /** Its text. */
  content: string;
  /** When. */
  created_at: string;
  /** Its status. */
  status: MessageStatus;
  /** The tools that the assistant called for it. */
  tool_calls: ToolCall[];
  /** The tokens used by an answer. */
  usage: Usage | null;
  /** The model of an answer. */
  model: string;
  /** Earlier answers to the same message, oldest first. */
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

/** The result. */
export type StopAnswerResponse = {
  /** Whether an answer was in progress and has been stopped. */
  stopped: boolean;
};

/** The conversation to answer again in. */
export type RegenerateAnswerRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The conversation. */
  conversation_id: number;
  /** Whether destructive tools wait for the user's approval. */
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

/** The user's decision on a tool call. */
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
  /** Its title. */
  title: string;
  /** A description; null if there is none. */
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
  /** The field to sort by. */
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
  /** The title: 1 to 200 characters, not counting white space around it. */
  title: string;
  /** A description, at most 1,000 characters. */
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

/** The changes to a task. */
export type UpdateTaskRequest = {
  /** The caller's UUID or number. */
  user_id: string;
  /** The task. */
  task_id: number;
  /** The title: 1 to 200 characters, not counting white space around it. */
  title?: string | null;
  /** A description, at most 1,000 characters; an empty one removes it. */
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
   * Sends a message to the assistant, in a new or an existing conversation, and returns its answer. The message is stored even if the
   * answer fails. The answer goes on if the client disconnects. With an `Idempotency-Key` (gRPC: the field) a repeated request gets the
   * first answer for 24 hours.
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

  /** Lists the messages of a conversation, oldest first: all of them, or the newest `limit`. */
  getHistory(request: GetHistoryRequest, options?: CallOptions): Reply<HistoryMessage[], GetHistoryCode> {
    return this.#caller.reply<HistoryMessage[]>({ verb: 'GET', path: '/api/{user_id}/chat/{conversation_id}/history', isRepeatable: true }, request, options);
  }

  /** Changes the title of a conversation. */
  updateConversation(request: UpdateConversationRequest, options?: CallOptions): Reply<Conversation, UpdateConversationCode> {
    return this.#caller.reply<Conversation>({ verb: 'PATCH', path: '/api/{user_id}/chat/{conversation_id}', body: '*', isRepeatable: true }, request, options);
  }

  /** Deletes a conversation with all its messages. An answer in progress is stopped. */
  deleteConversation(request: DeleteConversationRequest, options?: CallOptions): Reply<DeleteConversationResponse, DeleteConversationCode> {
    return this.#caller.reply<DeleteConversationResponse>({ verb: 'DELETE', path: '/api/{user_id}/chat/{conversation_id}' }, request, options);
  }

  /**
   * Streams the answer in progress in a conversation as events: from its beginning, or after the last event that the client has seen. 204
   * if no answer is in progress.
   */
  streamAnswer(request: StreamAnswerRequest, options?: CallOptions): AsyncGenerator<StreamAnswerResponse, void> {
    return this.#caller.events<StreamAnswerResponse>({ verb: 'GET', path: '/api/{user_id}/chat/{conversation_id}/stream', isRepeatable: true, hasNumericIds: true }, request, options);
  }

  /** Stops the answer in progress in a conversation. What it has so far is kept. */
  stopAnswer(request: StopAnswerRequest, options?: CallOptions): Reply<StopAnswerResponse, StopAnswerCode> {
    return this.#caller.reply<StopAnswerResponse>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/stop', body: '*', isRepeatable: true }, request, options);
  }

  /** Answers the user's last message again. The previous answer is kept as a sibling of the new one; the model doesn't see it. */
  regenerateAnswer(request: RegenerateAnswerRequest, options?: CallOptions): Reply<Answer, RegenerateAnswerCode> {
    return this.#caller.reply<Answer>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/regenerate', body: '*', set: { stream: false }, timeout: 185000 }, request, options);
  }

  /** As `regenerateAnswer`, with the response as events. */
  regenerateAnswerEvents(request: RegenerateAnswerRequest, options?: CallOptions): AsyncGenerator<RegenerateAnswerResponse, void> {
    return this.#caller.events<RegenerateAnswerResponse>({ verb: 'POST', path: '/api/{user_id}/chat/{conversation_id}/regenerate', body: '*', set: { stream: true }, hasNumericIds: true }, request, options);
  }

  /** Approves or rejects a tool call that waits for the user, and returns the rest of the answer: to its end, or to the next approval. */
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

  /** Creates a task. */
  createTask(request: CreateTaskRequest, options?: CallOptions): Reply<Task, CreateTaskCode> {
    return this.#caller.reply<Task>({ verb: 'POST', path: '/api/{user_id}/tasks', body: '*' }, request, options);
  }

  /** One task. */
  getTask(request: GetTaskRequest, options?: CallOptions): Reply<Task, GetTaskCode> {
    return this.#caller.reply<Task>({ verb: 'GET', path: '/api/{user_id}/tasks/{task_id}', isRepeatable: true }, request, options);
  }

  /** Changes the title or description of a task. Fields that are not set stay as they are. */
  updateTask(request: UpdateTaskRequest, options?: CallOptions): Reply<Task, UpdateTaskCode> {
    return this.#caller.reply<Task>({ verb: 'PUT', path: '/api/{user_id}/tasks/{task_id}', body: '*', isRepeatable: true }, request, options);
  }

  /** Deletes a task. */
  deleteTask(request: DeleteTaskRequest, options?: CallOptions): Reply<DeleteTaskResponse, DeleteTaskCode> {
    return this.#caller.reply<DeleteTaskResponse>({ verb: 'DELETE', path: '/api/{user_id}/tasks/{task_id}' }, request, options);
  }

  /** Completes a pending task, or makes a completed one pending again. */
  toggleTask(request: ToggleTaskRequest, options?: CallOptions): Reply<Task, ToggleTaskCode> {
    return this.#caller.reply<Task>({ verb: 'PATCH', path: '/api/{user_id}/tasks/{task_id}/complete', body: '*' }, request, options);
  }
}
