// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.
import * as fm from '../../../../fetch.ts';

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
  user_id?: string;
  /** The conversation that goes on; a new one if it is missing. */
  conversation_id?: number | null;
  /** The text, 1 to 32,000 characters, not only white space. */
  message?: string;
  /** Whether tools that destroy something wait for the user. */
  approve_tools?: boolean;
  /** A key by which a repeated request is known: 1 to 255 characters. Over HTTP the header Idempotency-Key. */
  idempotency_key?: string;
};

/** An event of an answer. */
export type ChatResponse = fm.EventOf<number, {
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
  user_id?: string;
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
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
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
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
  /** The title, 1 to 200 characters, not only white space. */
  title?: string;
};

/** The conversation as it is now. */
export type UpdateConversationResponse = {
  /** The conversation. */
  conversation: Conversation;
};

/** The conversation to delete. */
export type DeleteConversationRequest = {
  /** The caller's UUID or number. */
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
};

/** Nothing. */
export type DeleteConversationResponse = Record<string, never>;

/** Whose answer to follow. */
export type StreamAnswerRequest = {
  /** The caller's UUID or number. */
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
  /** The last event that the client has seen; 0 if none. Over HTTP the header Last-Event-ID. */
  last_event_id?: number;
};

/** An event of the answer under way. */
export type StreamAnswerResponse = fm.EventOf<number, {
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
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
};

/** What came of it. */
export type StopAnswerResponse = {
  /** Whether there was an answer under way, which has ended by this. */
  stopped: boolean;
};

/** Where to answer anew. */
export type RegenerateAnswerRequest = {
  /** The caller's UUID or number. */
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
  /** Whether tools that destroy something wait for the user. */
  approve_tools?: boolean;
};

/** An event of the new answer. */
export type RegenerateAnswerResponse = fm.EventOf<number, {
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
  user_id?: string;
  /** The conversation. */
  conversation_id?: number;
  /** The approval. */
  approval_id?: string;
  /** Whether the tool may be called. */
  approve?: boolean;
};

/** An event of the answer as it goes on. */
export type DecideApprovalResponse = fm.EventOf<number, {
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
  user_id?: string;
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
  user_id?: string;
  /** What is to be done: 1 to 200 characters without the white space around them. */
  title?: string;
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
  user_id?: string;
  /** The task. */
  task_id?: number;
};

/** The task. */
export type GetTaskResponse = {
  /** The task. */
  task: Task;
};

/** What is to be different. */
export type UpdateTaskRequest = {
  /** The caller's UUID or number. */
  user_id?: string;
  /** The task. */
  task_id?: number;
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
  user_id?: string;
  /** The task. */
  task_id?: number;
};

/** Nothing. */
export type DeleteTaskResponse = Record<string, never>;

/** Which task. */
export type ToggleTaskRequest = {
  /** The caller's UUID or number. */
  user_id?: string;
  /** The task. */
  task_id?: number;
};

/** The task as it is now. */
export type ToggleTaskResponse = {
  /** The task. */
  task: Task;
};

/** Conversations with the assistant. `user_id` in each request is the caller's UUID or number. */
export class AssistantService {
  /**
   * Says something to the assistant, in a new conversation or in one that goes on, and answers with what it says.
   *
   * The message is kept whatever becomes of the answer. A client that goes away doesn't stop the answer. With an
   * `Idempotency-Key` (gRPC: the field) a repeated request gets the first answer for 24 hours.
   */
  static Chat(req: ChatRequest, initReq?: fm.InitReq): Promise<Answer> {
    return fm.fetchReq<Answer>(`/api/${fm.pathValue(req, 'user_id')}/chat`, { timeout: 185000, ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: false }, fm.replacer) });
  }
  /** As `Chat`, with the answer as events. */
  static ChatEvents(req: ChatRequest, initReq?: fm.InitReq): AsyncGenerator<ChatResponse, void> {
    return fm.fetchEvents<ChatResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat`, Number, { ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: true }, fm.replacer) });
  }
  /** The caller's conversations, those with the newest activity first. */
  static ListConversations(req: ListConversationsRequest, initReq?: fm.InitReq): Promise<ListConversationsResponse> {
    return fm.fetchReq<ListConversationsResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat${fm.query(req, ['user_id'])}`, { ...initReq, method: 'GET' });
  }
  /** The messages of a conversation, the oldest first: all of them, or the newest `limit`. */
  static GetHistory(req: GetHistoryRequest, initReq?: fm.InitReq): Promise<HistoryMessage[]> {
    return fm.fetchReq<HistoryMessage[]>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/history${fm.query(req, ['user_id', 'conversation_id'])}`, { ...initReq, method: 'GET' });
  }
  /** Gives a conversation another title. */
  static UpdateConversation(req: UpdateConversationRequest, initReq?: fm.InitReq): Promise<Conversation> {
    return fm.fetchReq<Conversation>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}`, { ...initReq, method: 'PATCH', body: JSON.stringify(req, fm.replacer) });
  }
  /** Deletes a conversation with all its messages. An answer under way is stopped. */
  static DeleteConversation(req: DeleteConversationRequest, initReq?: fm.InitReq): Promise<DeleteConversationResponse> {
    return fm.fetchReq<DeleteConversationResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}`, { ...initReq, method: 'DELETE' });
  }
  /**
   * The answer that is under way in a conversation, as events: from its beginning, or behind the event that the client has seen last.
   * Without one there is nothing (204).
   */
  static StreamAnswer(req: StreamAnswerRequest, initReq?: fm.InitReq): AsyncGenerator<StreamAnswerResponse, void> {
    return fm.fetchEvents<StreamAnswerResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/stream${fm.query(req, ['user_id', 'conversation_id'])}`, Number, { ...initReq, method: 'GET' });
  }
  /** Ends the answer that is under way in a conversation. What was said so far is kept. */
  static StopAnswer(req: StopAnswerRequest, initReq?: fm.InitReq): Promise<StopAnswerResponse> {
    return fm.fetchReq<StopAnswerResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/stop`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** Answers the last message of the user anew. The answer before is kept as a sibling of the new one; the model doesn't see it. */
  static RegenerateAnswer(req: RegenerateAnswerRequest, initReq?: fm.InitReq): Promise<Answer> {
    return fm.fetchReq<Answer>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/regenerate`, { timeout: 185000, ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: false }, fm.replacer) });
  }
  /** As `RegenerateAnswer`, with the answer as events. */
  static RegenerateAnswerEvents(req: RegenerateAnswerRequest, initReq?: fm.InitReq): AsyncGenerator<RegenerateAnswerResponse, void> {
    return fm.fetchEvents<RegenerateAnswerResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/regenerate`, Number, { ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: true }, fm.replacer) });
  }
  /**
   * Lets a tool call that waits for the user run, or not, and answers with what comes of it: the finished answer, or the next
   * approval.
   */
  static DecideApproval(req: DecideApprovalRequest, initReq?: fm.InitReq): Promise<Answer> {
    return fm.fetchReq<Answer>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/approvals/${fm.pathValue(req, 'approval_id')}`, { timeout: 185000, ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: false }, fm.replacer) });
  }
  /** As `DecideApproval`, with the answer as events. */
  static DecideApprovalEvents(req: DecideApprovalRequest, initReq?: fm.InitReq): AsyncGenerator<DecideApprovalResponse, void> {
    return fm.fetchEvents<DecideApprovalResponse>(`/api/${fm.pathValue(req, 'user_id')}/chat/${fm.pathValue(req, 'conversation_id')}/approvals/${fm.pathValue(req, 'approval_id')}`, Number, { ...initReq, method: 'POST', body: JSON.stringify({ ...req, stream: true }, fm.replacer) });
  }
}

/** The caller's tasks. `user_id` in each request is the caller's UUID or number. */
export class TaskService {
  /** The tasks. */
  static ListTasks(req: ListTasksRequest, initReq?: fm.InitReq): Promise<Task[]> {
    return fm.fetchReq<Task[]>(`/api/${fm.pathValue(req, 'user_id')}/tasks${fm.query(req, ['user_id'])}`, { ...initReq, method: 'GET' });
  }
  /** Makes a task. */
  static CreateTask(req: CreateTaskRequest, initReq?: fm.InitReq): Promise<Task> {
    return fm.fetchReq<Task>(`/api/${fm.pathValue(req, 'user_id')}/tasks`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** One task. */
  static GetTask(req: GetTaskRequest, initReq?: fm.InitReq): Promise<Task> {
    return fm.fetchReq<Task>(`/api/${fm.pathValue(req, 'user_id')}/tasks/${fm.pathValue(req, 'task_id')}`, { ...initReq, method: 'GET' });
  }
  /** Gives a task another title or description. What the request doesn't say stays as it is. */
  static UpdateTask(req: UpdateTaskRequest, initReq?: fm.InitReq): Promise<Task> {
    return fm.fetchReq<Task>(`/api/${fm.pathValue(req, 'user_id')}/tasks/${fm.pathValue(req, 'task_id')}`, { ...initReq, method: 'PUT', body: JSON.stringify(req, fm.replacer) });
  }
  /** Deletes a task. */
  static DeleteTask(req: DeleteTaskRequest, initReq?: fm.InitReq): Promise<DeleteTaskResponse> {
    return fm.fetchReq<DeleteTaskResponse>(`/api/${fm.pathValue(req, 'user_id')}/tasks/${fm.pathValue(req, 'task_id')}`, { ...initReq, method: 'DELETE' });
  }
  /** Completes a task that is pending, and makes a completed one pending again. */
  static ToggleTask(req: ToggleTaskRequest, initReq?: fm.InitReq): Promise<Task> {
    return fm.fetchReq<Task>(`/api/${fm.pathValue(req, 'user_id')}/tasks/${fm.pathValue(req, 'task_id')}/complete`, { ...initReq, method: 'PATCH', body: JSON.stringify(req, fm.replacer) });
  }
}
