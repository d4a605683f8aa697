// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as Chat4allPagingV1Paging from '../../paging/v1/paging.pb.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** How an invocation ended. */
export const ResponseStatus = {
  /** With an answer. */
  RESPONSE_STATUS_SUCCESS: 'success',
  /** With a failure of the tool, or of this service while it ran. */
  RESPONSE_STATUS_ERROR: 'error',
  /** With a timeout. */
  RESPONSE_STATUS_TIMEOUT: 'timeout',
} as const;
export type ResponseStatus = (typeof ResponseStatus)[keyof typeof ResponseStatus];

/** Whether a subscription can be used. */
export const SubscriptionStatus = {
  /** It can be used, and renews itself. */
  SUBSCRIPTION_STATUS_ACTIVE: 'active',
  /** It can be used until `expires_at`. */
  SUBSCRIPTION_STATUS_CANCELLED: 'cancelled',
  /** It can't be used any more. */
  SUBSCRIPTION_STATUS_EXPIRED: 'expired',
} as const;
export type SubscriptionStatus = (typeof SubscriptionStatus)[keyof typeof SubscriptionStatus];

/** The names of the plans. */
export const PlanName = {
  /** To try it. */
  PLAN_NAME_FREE: 'free',
  /** For one person's work. */
  PLAN_NAME_PRO: 'pro',
  /** For many. */
  PLAN_NAME_ENTERPRISE: 'enterprise',
} as const;
export type PlanName = (typeof PlanName)[keyof typeof PlanName];

/** A tool in a list. */
export type ToolSummary = {
  /** UUID. */
  id: string;
  /** Unique name. */
  name: string;
  /** What it does. */
  description: string;
};

/** Which tools to list. */
export type ListToolsRequest = {
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A page of tools. */
export type ListToolsResponse = {
  /** The page. */
  tools: ToolSummary[];
  /** Which part of the list it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** A tool, as its users see it: without its endpoint. */
export type Tool = {
  /** UUID. */
  id: string;
  /** Unique name. */
  name: string;
  /** What it does. */
  description: string;
  /** Whether it can be invoked. */
  is_active: boolean;
  /** When it was added. */
  created_at: string;
};

/** Which tool. */
export type GetToolRequest = {
  /** UUID of the tool. */
  tool_id: string;
};

/** The tool. */
export type GetToolResponse = {
  /** The tool. */
  tool: Tool;
};

/** What to invoke, and with what. */
export type InvokeToolRequest = {
  /** UUID of the tool. */
  tool_id: string;
  /** The input, which is sent to the tool unchanged. */
  input: Record<string, unknown>;
};

/** The tool's answer. */
export type InvokeToolResponse = {
  /** Id of the request, as in the caller's usage. */
  request_id: string;
  /** The tool's answer: an object unchanged, anything else as `{"result": …}`. */
  output: Record<string, unknown>;
  /** The tokens that it used. */
  tokens_used: number;
  /** The duration in milliseconds, with all attempts. */
  duration_ms: number;
};

/** Which invocations to list. */
export type ListUsageRequest = {
  /** The first day, in UTC (`2026-11-29`); from the beginning if not set. */
  start_date?: string;
  /** The last day, in UTC; until now if not set. */
  end_date?: string;
  /** Only those of this tool. */
  tool_id?: string;
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** An invocation that was executed. */
export type UsageRecord = {
  /** UUID. */
  id: string;
  /** UUID of the tool. */
  tool_id: string;
  /** The last name of the tool. */
  tool_name: string;
  /** When it began. */
  timestamp: string;
  /** The tokens that it used; 0 if it failed. */
  tokens_used: number;
  /** How it ended. */
  response_status: ResponseStatus;
  /** The duration in milliseconds, with all attempts. */
  duration_ms: number;
  /** Its request id, as in the logs. */
  request_id: string;
};

/** A page of invocations. */
export type ListUsageResponse = {
  /** The page. */
  usage: UsageRecord[];
  /** Which part of the list it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** The days to sum up. */
export type GetUsageSummaryRequest = {
  /** The first day, in UTC (`2026-11-29`); from the beginning if not set. */
  start_date?: string;
  /** The last day, in UTC; until now if not set. */
  end_date?: string;
};

/** What one tool was used for. */
export type ToolUsage = {
  /** UUID of the tool. */
  tool_id: string;
  /** The last name of the tool. */
  tool_name: string;
  /** The tokens used in total. */
  tokens_used: number;
  /** How often it was invoked. */
  invocation_count: number;
};

/** What was used on one day. */
export type DayUsage = {
  /** The day, in UTC (`2026-11-29`). */
  date: string;
  /** The tokens used in total. */
  tokens_used: number;
  /** How many invocations there were. */
  invocation_count: number;
};

/** The sums. */
export type GetUsageSummaryResponse = {
  /** The tokens used in total. */
  total_tokens: number;
  /** How many invocations there were. */
  total_invocations: number;
  /** By tool, the most expensive first. */
  by_tool: ToolUsage[];
  /** By day, in order; days without invocations are left out. */
  by_day: DayUsage[];
};

/** What can be subscribed to. */
export type Plan = {
  /** Its name. */
  name: PlanName;
  /** Tokens that can be used in a period. */
  token_limit: number;
  /** What a month costs. */
  price_monthly: number;
  /** Its features, for people. */
  features: string[];
};

/** No fields: all plans are listed. */
export type ListPlansRequest = Record<string, never>;

/** The plans. */
export type ListPlansResponse = {
  /** The smallest first. */
  plans: Plan[];
};

/** A user's subscription. */
export type Subscription = {
  /** UUID; stays the same for a user. */
  id: string;
  /** The plan. */
  plan: PlanName;
  /** Whether it can be used. */
  status: SubscriptionStatus;
  /** Tokens that can be used in a period. */
  token_limit: number;
  /** Tokens that were used in this one. */
  tokens_used: number;
  /** Tokens that are left; never below 0. */
  tokens_remaining: number;
  /** When this period began. */
  period_start: string;
  /** When it ends. */
  period_end: string;
  /** When the subscription ends; not set while it renews itself. */
  expires_at?: string;
};

/** No fields: the credentials identify the caller. */
export type ListSubscriptionsRequest = Record<string, never>;

/** The caller's subscriptions. */
export type ListSubscriptionsResponse = {
  /** One, also if it is cancelled or has expired, or none. */
  subscriptions: Subscription[];
};

/** No fields: the credentials identify the caller. */
export type GetSubscriptionRequest = Record<string, never>;

/** The caller's subscription. */
export type GetSubscriptionResponse = {
  /** The subscription. */
  subscription: Subscription;
};

/** To what. */
export type SubscribeRequest = {
  /** Name of the plan: `free`, `pro` or `enterprise`. */
  plan: PlanName;
};

/** The caller's subscription. */
export type SubscribeResponse = {
  /** The subscription. */
  subscription: Subscription;
};

/** No fields: the credentials identify the caller. */
export type CancelSubscriptionRequest = Record<string, never>;

/** The caller's subscription. */
export type CancelSubscriptionResponse = {
  /** The subscription. */
  subscription: Subscription;
};

/** A tool as administrators see it. */
export type ManagedTool = {
  /** UUID. */
  id: string;
  /** Unique name. */
  name: string;
  /** What it does. */
  description: string;
  /** Whether it can be invoked. */
  is_active: boolean;
  /** When it was added. */
  created_at: string;
  /** Its endpoint. */
  api_endpoint: string;
};

/** The tool to add. */
export type CreateToolRequest = {
  /** Name, unique regardless of letter case: 1 to 100 characters, not counting spaces around it. */
  name: string;
  /** What it does: 1 to 4,000 characters. */
  description: string;
  /** Its endpoint, which is called with POST: an http or https URL of at most 500 characters with a publicly reachable host. */
  api_endpoint: string;
};

/** The new tool. */
export type CreateToolResponse = {
  /** The tool. */
  tool: ManagedTool;
};

/** Which tools to list. */
export type ListAllToolsRequest = {
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
  /** Only active ones, or only inactive ones; all by default. */
  is_active?: boolean | null;
};

/** A page of tools. */
export type ListAllToolsResponse = {
  /** The page. */
  tools: ManagedTool[];
  /** Which part of the list it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** What to change of a tool. */
export type UpdateToolRequest = {
  /** UUID of the tool. */
  tool_id: string;
  /** The new name; unchanged if not set. */
  name?: string | null;
  /** The new description; unchanged if not set. */
  description?: string | null;
  /** The new endpoint; unchanged if not set. */
  api_endpoint?: string | null;
  /** Whether it can be invoked; unchanged if not set. */
  is_active?: boolean | null;
};

/** The tool, with the change. */
export type UpdateToolResponse = {
  /** The tool. */
  tool: ManagedTool;
};

/** Which tool. */
export type DeleteToolRequest = {
  /** UUID of the tool. */
  tool_id: string;
};

/** No fields: the tool is deleted. */
export type DeleteToolResponse = Record<string, never>;

/** The days to sum up. */
export type GetUsageStatsRequest = {
  /** The first day, in UTC (`2026-11-29`); from the beginning if not set. */
  start_date?: string;
  /** The last day, in UTC; until now if not set. */
  end_date?: string;
};

/** What the users of one plan have used. */
export type PlanUsage = {
  /** The plan. */
  plan: PlanName;
  /** How many users have a usable subscription to it now. */
  user_count: number;
  /** What they used in those days. */
  tokens_used: number;
};

/** What all users have used. */
export type GetUsageStatsResponse = {
  /** The number of users, regardless of the days. */
  total_users: number;
  /** How many invocations there were. */
  total_invocations: number;
  /** The tokens used in total. */
  total_tokens: number;
  /** By plan: free, pro, enterprise. */
  by_plan: PlanUsage[];
  /** By tool, the most expensive first. */
  by_tool: ToolUsage[];
};

/** The error codes of `listTools`. */
export type ListToolsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `getTool`. */
export type GetToolCode = 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `invokeTool`. */
export type InvokeToolCode = 'CIRCUIT_OPEN' | 'NOT_FOUND' | 'SUBSCRIPTION_REQUIRED' | 'TOKEN_LIMIT_EXCEEDED' | 'TOOL_TIMEOUT' | 'TOOL_UNAVAILABLE' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listUsage`. */
export type ListUsageCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `getUsageSummary`. */
export type GetUsageSummaryCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listPlans`. */
export type ListPlansCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listSubscriptions`. */
export type ListSubscriptionsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `getSubscription`. */
export type GetSubscriptionCode = 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `subscribe`. */
export type SubscribeCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `cancelSubscription`. */
export type CancelSubscriptionCode = 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `createTool`. */
export type CreateToolCode = 'TOOL_NAME_TAKEN' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listAllTools`. */
export type ListAllToolsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `updateTool`. */
export type UpdateToolCode = 'NOT_FOUND' | 'TOOL_NAME_TAKEN' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `deleteTool`. */
export type DeleteToolCode = 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `getUsageStats`. */
export type GetUsageStatsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The tools, and their invocation. */
export class ToolService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The active tools, by name. */
  listTools(request: ListToolsRequest = {}, options?: CallOptions): Reply<wire.Page<ToolSummary[], Chat4allPagingV1Paging.Pagination>, ListToolsCode> {
    return this.#caller.reply<wire.Page<ToolSummary[], Chat4allPagingV1Paging.Pagination>>({ verb: 'GET', path: '/api/v1/tools', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** One active tool. */
  getTool(request: GetToolRequest, options?: CallOptions): Reply<Tool, GetToolCode> {
    return this.#caller.reply<Tool>({ verb: 'GET', path: '/api/v1/tools/{tool_id}', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /**
   * Invokes a tool. The tokens that it uses are counted against the caller's subscription, even if the caller doesn't wait for the answer.
   * A failed call costs nothing, and one that is refused before the tool is called isn't listed in the usage.
   */
  invokeTool(request: InvokeToolRequest, options?: CallOptions): Reply<InvokeToolResponse, InvokeToolCode> {
    return this.#caller.reply<InvokeToolResponse>({ verb: 'POST', path: '/api/v1/tools/{tool_id}/invoke', body: '*', isEnveloped: true, timeout: 335000 }, request, options);
  }
}

/** The caller's usage. */
export class UsageService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The caller's invocations, newest first. */
  listUsage(request: ListUsageRequest = {}, options?: CallOptions): Reply<wire.Page<UsageRecord[], Chat4allPagingV1Paging.Pagination>, ListUsageCode> {
    return this.#caller.reply<wire.Page<UsageRecord[], Chat4allPagingV1Paging.Pagination>>({ verb: 'GET', path: '/api/v1/usage', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Sums up the caller's invocations, by tool and by day. */
  getUsageSummary(request: GetUsageSummaryRequest = {}, options?: CallOptions): Reply<GetUsageSummaryResponse, GetUsageSummaryCode> {
    return this.#caller.reply<GetUsageSummaryResponse>({ verb: 'GET', path: '/api/v1/usage/summary', isRepeatable: true, isEnveloped: true }, request, options);
  }
}

/** Plans and the caller's subscription. */
export class SubscriptionService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The plans, the smallest first. */
  listPlans(request: ListPlansRequest = {}, options?: CallOptions): Reply<Plan[], ListPlansCode> {
    return this.#caller.reply<Plan[]>({ verb: 'GET', path: '/api/v1/subscriptions/plans', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** The caller's subscription as a list: empty for somebody who was never subscribed, which is no error here. */
  listSubscriptions(request: ListSubscriptionsRequest = {}, options?: CallOptions): Reply<Subscription[], ListSubscriptionsCode> {
    return this.#caller.reply<Subscription[]>({ verb: 'GET', path: '/api/v1/subscriptions', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Returns the caller's subscription, also if it is cancelled or has expired. */
  getSubscription(request: GetSubscriptionRequest = {}, options?: CallOptions): Reply<Subscription, GetSubscriptionCode> {
    return this.#caller.reply<Subscription>({ verb: 'GET', path: '/api/v1/subscriptions/current', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /**
   * Subscribes the caller to a plan, changes the plan, or revokes a cancellation. It takes effect at once, and the tokens used in the
   * period stay counted. No effect if the plan is active already.
   */
  subscribe(request: SubscribeRequest, options?: CallOptions): Reply<Subscription, SubscribeCode> {
    return this.#caller.reply<Subscription>({ verb: 'POST', path: '/api/v1/subscriptions/subscribe', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Cancels the caller's subscription: it can be used until its period ends. May be repeated. */
  cancelSubscription(request: CancelSubscriptionRequest = {}, options?: CallOptions): Reply<Subscription, CancelSubscriptionCode> {
    return this.#caller.reply<Subscription>({ verb: 'POST', path: '/api/v1/subscriptions/cancel', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }
}

/** The tools, and the usage of all users, for administrators. */
export class ToolAdminService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Adds a tool. */
  createTool(request: CreateToolRequest, options?: CallOptions): Reply<ManagedTool, CreateToolCode> {
    return this.#caller.reply<ManagedTool>({ verb: 'POST', path: '/api/v1/admin/tools', body: '*', isEnveloped: true }, request, options);
  }

  /** All tools, by name, inactive ones included. */
  listAllTools(request: ListAllToolsRequest = {}, options?: CallOptions): Reply<wire.Page<ManagedTool[], Chat4allPagingV1Paging.Pagination>, ListAllToolsCode> {
    return this.#caller.reply<wire.Page<ManagedTool[], Chat4allPagingV1Paging.Pagination>>({ verb: 'GET', path: '/api/v1/admin/tools', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Changes a tool. */
  updateTool(request: UpdateToolRequest, options?: CallOptions): Reply<ManagedTool, UpdateToolCode> {
    return this.#caller.reply<ManagedTool>({ verb: 'PATCH', path: '/api/v1/admin/tools/{tool_id}', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Deletes a tool. Its usage keeps the tool's name, which another tool may then have. */
  deleteTool(request: DeleteToolRequest, options?: CallOptions): Reply<DeleteToolResponse, DeleteToolCode> {
    return this.#caller.reply<DeleteToolResponse>({ verb: 'DELETE', path: '/api/v1/admin/tools/{tool_id}', isEnveloped: true }, request, options);
  }

  /** Sums up the usage of all users, by plan and by tool. */
  getUsageStats(request: GetUsageStatsRequest = {}, options?: CallOptions): Reply<GetUsageStatsResponse, GetUsageStatsCode> {
    return this.#caller.reply<GetUsageStatsResponse>({ verb: 'GET', path: '/api/v1/admin/usage/stats', isRepeatable: true, isEnveloped: true }, request, options);
  }
}
