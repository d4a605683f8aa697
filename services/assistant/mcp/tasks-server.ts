import { z } from 'zod';
import { invalidFields } from '#lib/errors.ts';
import type { Tasks } from '../tasks/tasks-store.ts';
import { taskLimits, taskNotFound, taskProblems, type Task, type TaskChange } from '../tasks/tasks.ts';
import { tool, type OurServer } from './our-server.ts';

const maxListedTasks = 500;

const taskId = z.int().min(1).describe('The id of the task, as list_tasks gives it');
const title = z.string().describe(`What is to be done: 1 to ${taskLimits.title} characters`);
const description = z.string().max(taskLimits.description).describe('More about it');
const changed = <Status extends string>(status: Status) => ({
  task_id: z.int(),
  status: z.literal(status),
  title: z.string(),
});

/** The MCP server `tasks`: its caller's list of things to do. */
export function tasksServer(tasks: Tasks): OurServer {
  return {
    name: 'tasks',
    title: 'Chat4All tasks',
    instructions:
      "The user's list of tasks. Ids are numbers: look for the id with list_tasks before you change a task that the user names by its title, and ask which one is meant if there are several.",
    tools: [
      tool({
        name: 'add_task',
        title: 'Add a task',
        description: 'Adds a task to the list of the user.',
        annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
        input: { title, description: description.optional() },
        output: changed('created'),
        async run(input, { caller, callId }) {
          checked(input);
          const task = await tasks.add(caller.userId, { ...input, callId });
          return { task_id: Number(task.id), status: 'created' as const, title: task.title };
        },
      }),
      tool({
        name: 'list_tasks',
        title: 'List the tasks',
        description: `Lists the tasks of the user, the oldest first, up to ${maxListedTasks} of them.`,
        annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
        input: {
          status: z.enum(['all', 'pending', 'completed']).optional().describe('Which of them; all if not given'),
        },
        output: {
          tasks: z.array(
            z.strictObject({
              id: z.int(),
              title: z.string(),
              description: z.string().nullable(),
              completed: z.boolean(),
            }),
          ),
          more: z.boolean().optional().describe('Whether there are more tasks than these'),
        },
        async run({ status = 'all' }, { caller }) {
          const listed: Task[] = [];
          for await (const page of tasks.list(caller.userId, { filter: status, sort: 'createdAt', order: 'asc' })) {
            listed.push(...page);
            if (listed.length > maxListedTasks) break;
          }
          return {
            tasks: listed.slice(0, maxListedTasks).map(({ id, ...task }) => ({
              id: Number(id),
              title: task.title,
              description: task.description,
              completed: task.completed,
            })),
            ...(listed.length > maxListedTasks ? { more: true } : {}),
          };
        },
      }),
      tool({
        name: 'complete_task',
        title: 'Complete a task',
        description: 'Marks a task of the user as completed. One that is completed stays so.',
        annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
        input: { task_id: taskId },
        output: changed('completed'),
        async run({ task_id: id }, { caller }) {
          const task = await tasks.complete(caller.userId, idOf(id));
          return { task_id: id, status: 'completed' as const, title: task.title };
        },
      }),
      tool({
        name: 'delete_task',
        title: 'Delete a task',
        description: 'Deletes a task of the user for good.',
        annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
        input: { task_id: taskId },
        output: changed('deleted'),
        async run({ task_id: id }, { caller }) {
          const task = await tasks.remove(caller.userId, idOf(id));
          return { task_id: id, status: 'deleted' as const, title: task.title };
        },
      }),
      tool({
        name: 'update_task',
        title: 'Change a task',
        description: 'Gives a task of the user another title or description: what it was before is lost.',
        annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
        input: {
          task_id: taskId,
          title: title.optional(),
          description: description.optional().describe('More about it; an empty one takes it away'),
        },
        output: changed('updated'),
        async run({ task_id: id, ...change }, { caller }) {
          checked(change);
          if (change.title === undefined && change.description === undefined) {
            throw invalidFields([{ field: 'title', description: 'say a title or a description' }]);
          }
          const task = await tasks.change(caller.userId, idOf(id), change);
          return { task_id: id, status: 'updated' as const, title: task.title };
        },
      }),
    ],
  };
}

function checked(change: TaskChange): void {
  const problems = taskProblems(change);
  if (problems.length > 0) throw invalidFields(problems);
}

/** @throws HubError NOT_FOUND `TASK_NOT_FOUND` for a number that no id has */
function idOf(given: number): bigint {
  if (!Number.isSafeInteger(given)) throw taskNotFound();
  return BigInt(given);
}
