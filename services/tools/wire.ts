import type { Pagination } from '#gen/chat4all/paging/v1/paging.ts';
import {
  PlanName as WirePlanName,
  ResponseStatus as WireResponseStatus,
  SubscriptionStatus as WireSubscriptionStatus,
  type ManagedTool,
  type Plan as PlanMessage,
  type Subscription as SubscriptionMessage,
  type Tool as ToolMessage,
  type ToolUsage,
  type UsageRecord as UsageMessage,
} from '#gen/chat4all/tools/v1/tools.ts';
import { hubDate } from '#lib/clock.ts';
import type { Page, Tool } from './catalog/catalog.ts';
import type { Plans } from './subscriptions/plans.ts';
import type { Subscription } from './subscriptions/subscriptions.ts';
import { statusAt, type Plan, type PlanName, type ResponseStatus, type SubscriptionStatus } from './tools.ts';
import type { ToolSum, UsageRecord } from './usage/usage.ts';

const wirePlanNames: Record<PlanName, WirePlanName> = {
  free: WirePlanName.PLAN_NAME_FREE,
  pro: WirePlanName.PLAN_NAME_PRO,
  enterprise: WirePlanName.PLAN_NAME_ENTERPRISE,
};

const wireSubscriptionStatuses: Record<SubscriptionStatus, WireSubscriptionStatus> = {
  active: WireSubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE,
  cancelled: WireSubscriptionStatus.SUBSCRIPTION_STATUS_CANCELLED,
  expired: WireSubscriptionStatus.SUBSCRIPTION_STATUS_EXPIRED,
};

const wireResponseStatuses: Record<ResponseStatus, WireResponseStatus> = {
  success: WireResponseStatus.RESPONSE_STATUS_SUCCESS,
  error: WireResponseStatus.RESPONSE_STATUS_ERROR,
  timeout: WireResponseStatus.RESPONSE_STATUS_TIMEOUT,
};

const defaultLimit = 20;

/** Undefined for one that isn't said. */
export function responseStatusOf(wire: WireResponseStatus): ResponseStatus | undefined {
  const found = Object.entries(wireResponseStatuses).find(([, value]) => value === wire);
  return found?.[0] as ResponseStatus | undefined;
}

export function pageOf({ limit = defaultLimit, offset }: { limit?: number | undefined; offset: number }): Page {
  return { limit, offset };
}

export function paginationOf({ limit, offset }: Page, total: number): Pagination {
  return { offset, limit, total: BigInt(total) };
}

export function wirePlanName(name: PlanName): WirePlanName {
  return wirePlanNames[name];
}

/** @throws Error for a plan that no rule of the proto lets through */
export function planNameOf(wire: WirePlanName): PlanName {
  const found = Object.entries(wirePlanNames).find(([, value]) => value === wire);
  if (found === undefined) throw new Error(`There is no plan ${wire}`);
  return found[0] as PlanName;
}

export function planMessage({ name, tokenLimit, priceMonthly, features }: Plan): PlanMessage {
  return { name: wirePlanName(name), tokenLimit: BigInt(tokenLimit), priceMonthly, features: [...features] };
}

export function toolMessage({ id, name, description, isActive, createdAt }: Tool): ToolMessage {
  return { id, name, description, isActive, createdAt };
}

export function managedTool(tool: Tool): ManagedTool {
  return { ...toolMessage(tool), apiEndpoint: tool.apiEndpoint };
}

export function usageMessage(record: UsageRecord): UsageMessage {
  const { id, toolId, toolName, beganAt, tokens, status, duration, requestId } = record;
  return {
    id,
    toolId,
    toolName,
    timestamp: beganAt,
    tokensUsed: BigInt(tokens),
    responseStatus: wireResponseStatuses[status],
    durationMs: BigInt(duration),
    requestId,
  };
}

export function toolUsage({ toolId, toolName, tokens, invocations }: ToolSum): ToolUsage {
  return { toolId, toolName, tokensUsed: BigInt(tokens), invocationCount: BigInt(invocations) };
}

export function subscriptionMessage(subscription: Subscription, plans: Plans): SubscriptionMessage {
  const { id, plan, tokensUsed, periodStart, periodEnd, expiresAt } = subscription;
  const limit = plans[plan].tokenLimit;
  return {
    id,
    plan: wirePlanName(plan),
    status: wireSubscriptionStatuses[statusAt(subscription, hubDate())],
    tokenLimit: BigInt(limit),
    tokensUsed: BigInt(tokensUsed),
    tokensRemaining: BigInt(Math.max(0, limit - tokensUsed)),
    periodStart,
    periodEnd,
    expiresAt,
  };
}
