import {
  SortOrder as WireSortOrder,
  TaskFilter as WireTaskFilter,
  TaskSort as WireTaskSort,
  type Task as TaskMessage,
  type TaskServiceService,
} from '#gen/chat4all/assistant/v1/assistant.ts';
import type { Identity, UserIdentity } from '#lib/identity.ts';
import { readAhead } from '#lib/read-ahead.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Finds, Handlers } from '#lib/rpc/server.ts';
import type { Tasks } from './tasks-store.ts';
import {
  taskNotFound,
  taskProblems,
  defaultOrder,
  type SortOrder,
  type Task,
  type TaskFilter,
  type TaskSort,
} from './tasks.ts';

const filters: Partial<Record<WireTaskFilter, TaskFilter>> = {
  [WireTaskFilter.TASK_FILTER_PENDING]: 'pending',
  [WireTaskFilter.TASK_FILTER_COMPLETED]: 'completed',
};
const sorts: Partial<Record<WireTaskSort, TaskSort>> = {
  [WireTaskSort.TASK_SORT_UPDATED_AT]: 'updatedAt',
  [WireTaskSort.TASK_SORT_TITLE]: 'title',
};
const orders: Partial<Record<WireSortOrder, SortOrder>> = {
  [WireSortOrder.SORT_ORDER_ASC]: 'asc',
  [WireSortOrder.SORT_ORDER_DESC]: 'desc',
};

export function taskHandlers(tasks: Tasks): Handlers<TaskServiceService> {
  return {
    async *listTasks({ status, sortBy, order }, { caller }: UserCall) {
      const sort = sorts[sortBy] ?? 'createdAt';
      const wanted = { filter: filters[status] ?? ('all' as const), sort, order: orders[order] ?? defaultOrder(sort) };
      for await (const page of readAhead(tasks.list(caller.userId, wanted))) {
        yield { tasks: page.map((task) => taskMessage(task, caller.numId)) };
      }
    },

    async createTask({ title, description }, { caller }: UserCall) {
      const task = await tasks.add(caller.userId, { title, description: description ?? null });
      return { task: taskMessage(task, caller.numId) };
    },

    async getTask({ taskId }, { caller }: UserCall) {
      const task = await tasks.find(caller.userId, taskId);
      if (task === undefined) throw taskNotFound();
      return { task: taskMessage(task, caller.numId) };
    },

    async updateTask({ taskId, title, description }, { caller }: UserCall) {
      return { task: taskMessage(await tasks.change(caller.userId, taskId, { title, description }), caller.numId) };
    },

    async deleteTask({ taskId }, { caller }: UserCall) {
      await tasks.remove(caller.userId, taskId);
      return {};
    },

    async toggleTask({ taskId }, { caller }: UserCall) {
      return { task: taskMessage(await tasks.toggle(caller.userId, taskId), caller.numId) };
    },
  };
}

export const taskChecks: Checks<TaskServiceService> = {
  createTask: ({ title, description }) => taskProblems({ title, description }),
  updateTask: ({ title, description }) => taskProblems({ title, description }),
};

/** A task that is not there, or is somebody else's, is said so before anything of the request. */
export function taskFinds(tasks: Tasks): Finds<TaskServiceService> {
  const requireTask = async ({ taskId }: { taskId: bigint }, _found: unknown, caller: Identity | undefined) => {
    const task = await tasks.find((caller as UserIdentity).userId, taskId);
    if (task === undefined) throw taskNotFound();
  };
  return { updateTask: requireTask, toggleTask: requireTask };
}

function taskMessage({ id, title, description, completed, createdAt, updatedAt }: Task, userId: bigint): TaskMessage {
  return { id, userId, title, description: description ?? undefined, completed, createdAt, updatedAt };
}
