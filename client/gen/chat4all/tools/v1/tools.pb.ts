// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.
import * as fm from '../../../../fetch.ts';

import type * as Chat4allPagingV1Paging from '../../paging/v1/paging.pb.ts';

/** How an invocation ended. */
export const ResponseStatus = {
  /** With an answer. */
  RESPONSE_STATUS_SUCCESS: 'success',
  /** With a failure of the tool, or of this service while it ran. */
  RESPONSE_STATUS_ERROR: 'error',
  /** Without an answer in time. */
  RESPONSE_STATUS_TIMEOUT: 'timeout',
} as const;
export type ResponseStatus = (typeof ResponseStatus)[keyof typeof ResponseStatus];

/** Whether a subscription can be used. */
export const SubscriptionStatus = {
  /** It can, and renews itself. */
  SUBSCRIPTION_STATUS_ACTIVE: 'active',
  /** It can until `expires_at`. */
  SUBSCRIPTION_STATUS_CANCELLED: 'cancelled',
  /** It can't. */
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
  /** How many to return: 1 to 100, 20 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** A page of tools. */
export type ListToolsResponse = {
  /** The page. */
  tools: ToolSummary[];
  /** Which part of all it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** A tool, as its users see it: not where it is. */
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
  tool_id?: string;
};

/** The tool. */
export type GetToolResponse = {
  /** The tool. */
  tool: Tool;
};

/** What to invoke, and with what. */
export type InvokeToolRequest = {
  /** UUID of the tool. */
  tool_id?: string;
  /** What the tool is sent, as it is. */
  input?: Record<string, unknown>;
};

/** What the tool made of it. */
export type InvokeToolResponse = {
  /** Id of the request, as in the caller's usage. */
  request_id: string;
  /** What the tool answered: an object as it is, anything else as `{"result": …}`. */
  output: Record<string, unknown>;
  /** What it cost. */
  tokens_used: number;
  /** Milliseconds that it took, all tries together. */
  duration_ms: number;
};

/** Which invocations to list. */
export type ListUsageRequest = {
  /** The first day, in UTC (`2026-11-29`); not set, from the beginning. */
  start_date?: string;
  /** The last day, in UTC; not set, until now. */
  end_date?: string;
  /** Only those of this tool. */
  tool_id?: string;
  /** How many to return: 1 to 100, 20 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** An invocation that was executed. */
export type UsageRecord = {
  /** UUID. */
  id: string;
  /** UUID of the tool. */
  tool_id: string;
  /** Name of the tool, as it was called last. */
  tool_name: string;
  /** When it began. */
  timestamp: string;
  /** What it cost; 0 if it failed. */
  tokens_used: number;
  /** How it ended. */
  response_status: ResponseStatus;
  /** Milliseconds that it took, all tries together. */
  duration_ms: number;
  /** Id of its request: the one to look for in the logs. */
  request_id: string;
};

/** A page of invocations. */
export type ListUsageResponse = {
  /** The page. */
  usage: UsageRecord[];
  /** Which part of all it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** Of which days. */
export type GetUsageSummaryRequest = {
  /** The first day, in UTC (`2026-11-29`); not set, from the beginning. */
  start_date?: string;
  /** The last day, in UTC; not set, until now. */
  end_date?: string;
};

/** What one tool was used for. */
export type ToolUsage = {
  /** UUID of the tool. */
  tool_id: string;
  /** Name of the tool, as it was called last. */
  tool_name: string;
  /** What it cost in all. */
  tokens_used: number;
  /** How often it was invoked. */
  invocation_count: number;
};

/** What was used on one day. */
export type DayUsage = {
  /** The day, in UTC (`2026-11-29`). */
  date: string;
  /** What it cost in all. */
  tokens_used: number;
  /** How many invocations there were. */
  invocation_count: number;
};

/** The sums. */
export type GetUsageSummaryResponse = {
  /** What all of it cost. */
  total_tokens: number;
  /** How many invocations there were. */
  total_invocations: number;
  /** By tool, the dearest first. */
  by_tool: ToolUsage[];
  /** By day, the first one first; days without any are left out. */
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
  /** What it offers, for people. */
  features: string[];
};

/** Nothing: all plans. */
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

/** Nothing: the credentials say whose. */
export type GetSubscriptionRequest = Record<string, never>;

/** The caller's subscription. */
export type GetSubscriptionResponse = {
  /** The subscription. */
  subscription: Subscription;
};

/** To what. */
export type SubscribeRequest = {
  /** Name of the plan: `free`, `pro` or `enterprise`. */
  plan?: PlanName;
};

/** The caller's subscription. */
export type SubscribeResponse = {
  /** The subscription. */
  subscription: Subscription;
};

/** Nothing: the credentials say whose. */
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
  /** Where it is asked. */
  api_endpoint: string;
};

/** The tool to add. */
export type CreateToolRequest = {
  /** Unique name in whatever letter case: 1 to 100 characters, without the spaces around them. */
  name?: string;
  /** What it does: 1 to 4,000 characters. */
  description?: string;
  /** Where it is asked, with a POST: an http or https URL of at most 500 characters, whose host is reachable from everywhere. */
  api_endpoint?: string;
};

/** The new tool. */
export type CreateToolResponse = {
  /** The tool. */
  tool: ManagedTool;
};

/** Which tools to list. */
export type ListAllToolsRequest = {
  /** How many to return: 1 to 100, 20 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
  /** Only active ones, or only inactive ones; all if not said. */
  is_active?: boolean | null;
};

/** A page of tools. */
export type ListAllToolsResponse = {
  /** The page. */
  tools: ManagedTool[];
  /** Which part of all it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** What to change of a tool. */
export type UpdateToolRequest = {
  /** UUID of the tool. */
  tool_id?: string;
  /** The new name; not set, it stays. */
  name?: string | null;
  /** The new description; not set, it stays. */
  description?: string | null;
  /** The new endpoint; not set, it stays. */
  api_endpoint?: string | null;
  /** Whether it can be invoked; not set, that stays. */
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
  tool_id?: string;
};

/** Nothing: it is gone. */
export type DeleteToolResponse = Record<string, never>;

/** Of which days. */
export type GetUsageStatsRequest = {
  /** The first day, in UTC (`2026-11-29`); not set, from the beginning. */
  start_date?: string;
  /** The last day, in UTC; not set, until now. */
  end_date?: string;
};

/** What the users of one plan have used. */
export type PlanUsage = {
  /** The plan. */
  plan: PlanName;
  /** How many have it now, so that it can be used. */
  user_count: number;
  /** What they used in those days. */
  tokens_used: number;
};

/** What all users have used. */
export type GetUsageStatsResponse = {
  /** How many users there are, whatever the days. */
  total_users: number;
  /** How many invocations there were. */
  total_invocations: number;
  /** What all of it cost. */
  total_tokens: number;
  /** By plan: free, pro, enterprise. */
  by_plan: PlanUsage[];
  /** By tool, the dearest first. */
  by_tool: ToolUsage[];
};

/** The tools, and their invocation. */
export class ToolService {
  /** The active tools, by name. */
  static ListTools(req: ListToolsRequest, initReq?: fm.InitReq): Promise<fm.Page<ToolSummary[], Chat4allPagingV1Paging.Pagination>> {
    return fm.fetchData<fm.Page<ToolSummary[], Chat4allPagingV1Paging.Pagination>>(`/api/v1/tools${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
  /** One active tool. */
  static GetTool(req: GetToolRequest, initReq?: fm.InitReq): Promise<Tool> {
    return fm.fetchData<Tool>(`/api/v1/tools/${fm.pathValue(req, 'tool_id')}`, { ...initReq, method: 'GET' });
  }
  /**
   * Has a tool work on an input. What it uses is counted against the caller's subscription, whether the caller waits for the
   * answer or not; a call that fails counts nothing, and one that is refused before the tool is asked leaves no trace.
   */
  static InvokeTool(req: InvokeToolRequest, initReq?: fm.InitReq): Promise<InvokeToolResponse> {
    return fm.fetchData<InvokeToolResponse>(`/api/v1/tools/${fm.pathValue(req, 'tool_id')}/invoke`, { timeout: 335000, ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
}

/** What the caller has used. */
export class UsageService {
  /** The caller's invocations, newest first. */
  static ListUsage(req: ListUsageRequest, initReq?: fm.InitReq): Promise<fm.Page<UsageRecord[], Chat4allPagingV1Paging.Pagination>> {
    return fm.fetchData<fm.Page<UsageRecord[], Chat4allPagingV1Paging.Pagination>>(`/api/v1/usage${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
  /** The sums of them, by tool and by day. */
  static GetUsageSummary(req: GetUsageSummaryRequest, initReq?: fm.InitReq): Promise<GetUsageSummaryResponse> {
    return fm.fetchData<GetUsageSummaryResponse>(`/api/v1/usage/summary${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
}

/** Plans, and what the caller is subscribed to. */
export class SubscriptionService {
  /** The plans, the smallest first. */
  static ListPlans(_req: ListPlansRequest, initReq?: fm.InitReq): Promise<Plan[]> {
    return fm.fetchData<Plan[]>(`/api/v1/subscriptions/plans`, { ...initReq, method: 'GET' });
  }
  /** The caller's subscription, also one that is cancelled or has expired. */
  static GetSubscription(_req: GetSubscriptionRequest, initReq?: fm.InitReq): Promise<Subscription> {
    return fm.fetchData<Subscription>(`/api/v1/subscriptions/current`, { ...initReq, method: 'GET' });
  }
  /**
   * Subscribes the caller to a plan, changes the plan, or takes a cancellation back; at once, and what was used stays counted.
   * The plan that is active already changes nothing.
   */
  static Subscribe(req: SubscribeRequest, initReq?: fm.InitReq): Promise<Subscription> {
    return fm.fetchData<Subscription>(`/api/v1/subscriptions/subscribe`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** Cancels the caller's subscription: it can be used until its period ends. May be repeated. */
  static CancelSubscription(req: CancelSubscriptionRequest, initReq?: fm.InitReq): Promise<Subscription> {
    return fm.fetchData<Subscription>(`/api/v1/subscriptions/cancel`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
}

/** The tools as administrators see them, and what all users use. */
export class ToolAdminService {
  /** Adds a tool. */
  static CreateTool(req: CreateToolRequest, initReq?: fm.InitReq): Promise<ManagedTool> {
    return fm.fetchData<ManagedTool>(`/api/v1/admin/tools`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** All tools, by name, inactive ones included. */
  static ListAllTools(req: ListAllToolsRequest, initReq?: fm.InitReq): Promise<fm.Page<ManagedTool[], Chat4allPagingV1Paging.Pagination>> {
    return fm.fetchData<fm.Page<ManagedTool[], Chat4allPagingV1Paging.Pagination>>(`/api/v1/admin/tools${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
  /** Changes a tool. */
  static UpdateTool(req: UpdateToolRequest, initReq?: fm.InitReq): Promise<ManagedTool> {
    return fm.fetchData<ManagedTool>(`/api/v1/admin/tools/${fm.pathValue(req, 'tool_id')}`, { ...initReq, method: 'PATCH', body: JSON.stringify(req, fm.replacer) });
  }
  /** Takes a tool away. What was used of it keeps its name, which another tool may have from then on. */
  static DeleteTool(req: DeleteToolRequest, initReq?: fm.InitReq): Promise<DeleteToolResponse> {
    return fm.fetchData<DeleteToolResponse>(`/api/v1/admin/tools/${fm.pathValue(req, 'tool_id')}`, { ...initReq, method: 'DELETE' });
  }
  /** What all users have used, by plan and by tool. */
  static GetUsageStats(req: GetUsageStatsRequest, initReq?: fm.InitReq): Promise<GetUsageStatsResponse> {
    return fm.fetchData<GetUsageStatsResponse>(`/api/v1/admin/usage/stats${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
}
