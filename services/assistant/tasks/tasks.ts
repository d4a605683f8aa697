import { HubError, type FieldViolation } from '#lib/errors.ts';

export interface Task {
  id: bigint;
  title: string;
  description: string | null;
  completed: boolean;
  createdAt: Date;
  updatedAt: Date;
}

export type TaskFilter = 'all' | 'pending' | 'completed';
export type TaskSort = 'createdAt' | 'updatedAt' | 'title';
export type SortOrder = 'asc' | 'desc';

/** Which tasks, and in which order. Those that are alike are in the order in which they were made. */
export interface TaskOrder {
  filter: TaskFilter;
  sort: TaskSort;
  order: SortOrder;
}

/** What is to be different about a task; a description that is null is taken away. */
export interface TaskChange {
  title?: string | undefined;
  description?: string | null | undefined;
}

export const taskLimits = {
  /** Characters (code points) of a title, without the white space around it. */
  title: 200,
  /** Characters (code points) of a description. */
  description: 1_000,
  /** How many tasks a user may have. */
  perUser: 20_000,
} as const;

/** Which order is meant by somebody who doesn't say: times the newest first, titles from A to Z. */
export function defaultOrder(sort: TaskSort): SortOrder {
  return sort === 'title' ? 'asc' : 'desc';
}

/** What is wrong with the title or the description of a task, as far as they are given. */
export function taskProblems({ title, description }: TaskChange): FieldViolation[] {
  return [
    ...(title === undefined ? [] : titleProblems(title)),
    ...(description === undefined || description === null ? [] : descriptionProblems(description)),
  ];
}

function titleProblems(given: string): FieldViolation[] {
  const title = given.trim();
  const problem = (rule: string, description: string) => [{ field: 'title', rule, description }];
  if (title === '') return problem('min_length', 'must have a character that is no white space');
  if (lengthOf(title) > taskLimits.title)
    return problem('max_length', `must have at most ${taskLimits.title} characters`);
  return title.includes('\0') ? problem('no_nul', 'must not contain NUL') : [];
}

function descriptionProblems(given: string): FieldViolation[] {
  const problem = (rule: string, description: string) => [{ field: 'description', rule, description }];
  if (lengthOf(given) > taskLimits.description) {
    return problem('max_length', `must have at most ${taskLimits.description} characters`);
  }
  return given.includes('\0') ? problem('no_nul', 'must not contain NUL') : [];
}

/** Characters are code points, as in protovalidate's `max_len`. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}

export function taskNotFound(): HubError {
  return new HubError('NOT_FOUND', 'TASK_NOT_FOUND', 'There is no such task');
}

export function tooManyTasks(): HubError {
  const message = `You have ${taskLimits.perUser} tasks, and can't have more: delete some`;
  return new HubError('RESOURCE_EXHAUSTED', 'TOO_MANY_TASKS', message);
}
