import type { AccountRecordServiceService } from '#gen/chat4all/account/v1/account.ts';
import type {
  MeteringServiceService,
  SubscriptionServiceService,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
} from '#gen/chat4all/tools/v1/tools.ts';
import { invalidFields } from '#lib/errors.ts';
import type { ServiceIdentity } from '#lib/identity.ts';
import type { Endpoints } from '#lib/public-endpoint.ts';
import type { Call, UserCall } from '#lib/rpc/call.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import type { Actor, Catalog } from './catalog/catalog.ts';
import type { Invocations } from './invocations/invocation.ts';
import type { Metering } from './usage/metering.ts';
import type { Outbox } from './outbox.ts';
import type { Plans } from './subscriptions/plans.ts';
import type { Subscriptions } from './subscriptions/subscriptions.ts';
import { daysFrom, planNames, subscriptionNotFound, toolNotFound, toolProblems, type Days } from './tools.ts';
import type { UsageReads } from './usage/usage.ts';
import {
  managedTool,
  pageOf,
  paginationOf,
  planMessage,
  planNameOf,
  responseStatusOf,
  subscriptionMessage,
  toolMessage,
  toolUsage,
  usageMessage,
  wirePlanName,
} from './wire.ts';

export function toolHandlers({
  catalog,
  invocations,
}: {
  catalog: Catalog;
  invocations: Invocations;
}): Handlers<ToolServiceService> {
  return {
    async listTools(request) {
      const page = pageOf(request);
      const [tools, total] = await catalog.list(page, true);
      return {
        tools: tools.map(({ id, name, description }) => ({ id, name, description })),
        pagination: paginationOf(page, total),
      };
    },

    async getTool({ toolId }) {
      const tool = await catalog.findActive(toolId);
      if (tool === undefined) throw toolNotFound();
      return { tool: toolMessage(tool) };
    },

    async invokeTool({ toolId, input = {} }, { caller, requestId }: UserCall) {
      const { output, tokens, duration } = await invocations.invoke({
        userId: caller.userId,
        toolId,
        input,
        requestId,
      });
      return { requestId, output, tokensUsed: BigInt(tokens), durationMs: BigInt(duration) };
    },
  };
}

export function usageHandlers(usage: UsageReads): Handlers<UsageServiceService> {
  return {
    async listUsage(request, { caller }: UserCall) {
      const page = pageOf(request);
      const toolId = request.toolId === '' ? undefined : request.toolId;
      const [records, total] = await usage.list(caller.userId, { days: daysOf(request), toolId, ...page });
      return { usage: records.map(usageMessage), pagination: paginationOf(page, total) };
    },

    async getUsageSummary(request, { caller }: UserCall) {
      const { total, byTool, byDay } = await usage.summary(caller.userId, daysOf(request));
      return {
        totalTokens: BigInt(total.tokens),
        totalInvocations: BigInt(total.invocations),
        byTool: byTool.map(toolUsage),
        byDay: byDay.map(({ day, tokens, invocations }) => ({
          date: day,
          tokensUsed: BigInt(tokens),
          invocationCount: BigInt(invocations),
        })),
      };
    },
  };
}

export const usageChecks: Checks<UsageServiceService> = {
  listUsage: (request) => dayProblems(request),
  getUsageSummary: (request) => dayProblems(request),
};

export function subscriptionHandlers({
  subscriptions,
  plans,
  outbox,
}: {
  subscriptions: Subscriptions;
  plans: Plans;
  outbox: Outbox;
}): Handlers<SubscriptionServiceService> {
  return {
    async listPlans() {
      return { plans: planNames.map((name) => planMessage(plans[name])) };
    },

    async listSubscriptions(_request, { caller }: UserCall) {
      const subscription = await subscriptions.find(caller.userId);
      return { subscriptions: subscription === undefined ? [] : [subscriptionMessage(subscription, plans)] };
    },

    async getSubscription(_request, { caller }: UserCall) {
      const subscription = await subscriptions.find(caller.userId);
      if (subscription === undefined) throw subscriptionNotFound();
      return { subscription: subscriptionMessage(subscription, plans) };
    },

    async subscribe({ plan }, { caller }: UserCall) {
      const { subscription, entry } = await subscriptions.subscribe(caller.userId, planNameOf(plan));
      await outbox.push(entry);
      return { subscription: subscriptionMessage(subscription, plans) };
    },

    async cancelSubscription(_request, { caller }: UserCall) {
      const changed = await subscriptions.cancel(caller.userId);
      if (changed === undefined) throw subscriptionNotFound();
      await outbox.push(changed.entry);
      return { subscription: subscriptionMessage(changed.subscription, plans) };
    },
  };
}

export interface AdminOptions {
  catalog: Catalog;
  usage: UsageReads;
  subscriptions: Subscriptions;
  outbox: Outbox;
  accounts: Pick<Connection<AccountRecordServiceService>, 'countUsers'>;
}

export function adminHandlers(options: AdminOptions): Handlers<ToolAdminServiceService> {
  const { catalog, usage, subscriptions, outbox, accounts } = options;
  return {
    async createTool({ name, description, apiEndpoint }, call: UserCall) {
      const wanted = { name: name.trim(), description, apiEndpoint, isActive: true };
      const { tool, entry } = await catalog.create(wanted, actorOf(call));
      await outbox.push(entry);
      return { tool: managedTool(tool) };
    },

    async listAllTools(request) {
      const page = pageOf(request);
      const [tools, total] = await catalog.list(page, request.isActive);
      return { tools: tools.map(managedTool), pagination: paginationOf(page, total) };
    },

    async updateTool({ toolId, name, description, apiEndpoint, isActive }, call: UserCall) {
      const wish = { name: name?.trim(), description, apiEndpoint, isActive };
      const { tool, entry } = await catalog.update(toolId, definedOf(wish), actorOf(call));
      await outbox.push(entry);
      return { tool: managedTool(tool) };
    },

    async deleteTool({ toolId }, call: UserCall) {
      await outbox.push(await catalog.remove(toolId, actorOf(call)));
      return {};
    },

    async getUsageStats(request) {
      const [{ total: users }, { total, byTool, byPlan }, counts] = await Promise.all([
        accounts.countUsers({}),
        usage.stats(daysOf(request)),
        subscriptions.countByPlan(),
      ]);
      return {
        totalUsers: users,
        totalInvocations: BigInt(total.invocations),
        totalTokens: BigInt(total.tokens),
        byPlan: planNames.map((plan) => ({
          plan: wirePlanName(plan),
          userCount: BigInt(counts.get(plan) ?? 0),
          tokensUsed: BigInt(byPlan.get(plan) ?? 0),
        })),
        byTool: byTool.map(toolUsage),
      };
    },
  };
}

export function meteringHandlers(metering: Metering): Handlers<MeteringServiceService> {
  return {
    async reserveTokens({ userId, requestId, seconds }, { caller, signal }: Call<ServiceIdentity>) {
      const work = { userId, requestId, limit: seconds * 1_000 };
      return { reservationId: await metering.reserve(caller.name, work, signal) };
    },

    async settleTokens({ reservationId, userId, status, tokens, durationMs }, { caller }: Call<ServiceIdentity>) {
      await metering.settle(caller.name, {
        reservationId,
        userId,
        status: responseStatusOf(status),
        tokens: Number(tokens),
        duration: durationMs,
      });
      return {};
    },
  };
}

/** What is wrong with tools that administrators describe, and with days. */
export function adminChecks(endpoints: Pick<Endpoints, 'problem'>): Checks<ToolAdminServiceService> {
  const endpointProblems = (endpoint: string | undefined) => {
    const problem = endpoint === undefined ? undefined : endpoints.problem(endpoint);
    return problem === undefined ? [] : [{ field: 'api_endpoint', ...problem }];
  };
  return {
    createTool: (request) => [...toolProblems(request), ...endpointProblems(request.apiEndpoint)],
    updateTool: ({ name, description, apiEndpoint }) => [
      ...toolProblems(definedOf({ name, description })),
      ...endpointProblems(apiEndpoint),
    ],
    getUsageStats: (request) => dayProblems(request),
  };
}

interface AskedDays {
  startDate: string;
  endDate: string;
}

function dayProblems({ startDate, endDate }: AskedDays) {
  return daysFrom(startDate, endDate).problems;
}

function daysOf({ startDate, endDate }: AskedDays): Days {
  const { days, problems } = daysFrom(startDate, endDate);
  if (problems.length > 0) throw invalidFields(problems);
  return days;
}

function actorOf({ caller, requestId }: UserCall): Actor {
  return { actorId: caller.userId, requestId };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function definedOf<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<T>;
}
