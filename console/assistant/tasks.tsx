import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Task, TaskFilter } from '#client/assistant';
import { Empty, Failed, Failure, Loading, useAction } from '../shell/components.tsx';
import { BackIcon, DeleteIcon } from '../shell/icons.tsx';
import { urlOf } from '../shell/router.ts';
import { client, isReachable, me } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';

const filters: readonly { value: TaskFilter; title: string; none: string }[] = [
  { value: 'pending', title: 'To do', none: 'Nothing to do' },
  { value: 'completed', title: 'Done', none: 'Nothing done yet' },
  { value: 'all', title: 'All', none: 'No tasks yet' },
];

/** Tasks that are on the page at once. */
const atOnce = 100;

/** The tasks that the assistant keeps. */
export function Tasks() {
  const filter = useSignal<TaskFilter>('pending');
  const tasks = useSignal<readonly Task[] | undefined>(undefined);
  const error = useSignal<unknown>(undefined);
  const shown = useSignal(atOnce);
  const load = async () => {
    const { value: status } = filter;
    try {
      const found = await client.task.listTasks({ user_id: me(), status });
      // Meanwhile others may have been asked for.
      if (filter.peek() !== status) return;
      tasks.value = found;
      error.value = undefined;
    } catch (failure) {
      error.value = failure;
    }
  };
  useEffect(() => {
    tasks.value = undefined;
    shown.value = atOnce;
    void load();
  }, [filter.value]);
  useEffect(() => {
    if (isReachable.value && error.peek() !== undefined) void load();
  }, [isReachable.value]);
  const { none } = filters.find(({ value }) => value === filter.value)!;
  return (
    <section class="conversation tasks" aria-label="Tasks">
      <header class="row">
        <a class="button plain icon back" href={urlOf('assistant')} aria-label="Back to the conversations">
          <BackIcon />
        </a>
        <h2 class="heading">Tasks</h2>
        <fieldset class="filter row">
          <legend class="hidden-text">Which tasks</legend>
          {filters.map(({ value, title }) => (
            <label key={value}>
              <input
                type="radio"
                name="tasks"
                checked={filter.value === value}
                onChange={() => (filter.value = value)}
              />
              {title}
            </label>
          ))}
        </fieldset>
      </header>
      <div class="body" tabIndex={0} role="region" aria-label="List of tasks">
        {tasks.value === undefined ? (
          error.value === undefined ? (
            <Loading what="your tasks" />
          ) : (
            <Failed what="your tasks" error={error.value} again={() => void load()} />
          )
        ) : tasks.value.length === 0 ? (
          <Empty title={none}>
            <p>The assistant keeps tasks for you: “Add a task to buy groceries”.</p>
          </Empty>
        ) : (
          <>
            <ul>
              {tasks.value.slice(0, shown.value).map((task) => (
                <TaskItem
                  key={task.id}
                  task={task}
                  changed={(now) => {
                    tasks.value = tasks.value?.flatMap((each) => (each.id !== task.id ? [each] : (now ?? [])));
                  }}
                />
              ))}
            </ul>
            {tasks.value.length > shown.value && (
              <button type="button" class="button plain more" onClick={() => (shown.value += atOnce)}>
                Show more
              </button>
            )}
          </>
        )}
      </div>
    </section>
  );
}

/** @param props.changed called with the task as it is then; undefined if it is deleted */
function TaskItem({ task, changed }: { task: Task; changed: (now: Task | undefined) => void }) {
  const { id: task_id, title, description, completed, created_at } = task;
  const action = useAction();
  const toggle = () => action.run(async () => changed(await client.task.toggleTask({ user_id: me(), task_id })));
  const remove = () =>
    action.run(async () => {
      await client.task.deleteTask({ user_id: me(), task_id });
      changed(undefined);
    });
  return (
    <li class="task">
      <label>
        <input
          type="checkbox"
          checked={completed}
          disabled={action.isRunning.value}
          onChange={({ currentTarget }) => {
            // The hub says what it is.
            currentTarget.checked = completed;
            void toggle();
          }}
        />
        <span class={completed ? 'title done' : 'title'} dir="auto">
          {title}
        </span>
      </label>
      <time class="quiet small" dateTime={created_at}>
        {fullTime(created_at)}
      </time>
      <button
        type="button"
        class="button plain icon"
        aria-label={`Delete ${title}`}
        disabled={action.isRunning.value}
        onClick={() => void remove()}
      >
        <DeleteIcon />
      </button>
      {description !== null && (
        <p class="quiet" dir="auto">
          {description}
        </p>
      )}
      <Failure of={action} />
    </li>
  );
}
