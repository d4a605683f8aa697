import { fork } from 'node:child_process';
import { once } from 'node:events';

/** What a process can be asked to do, by name. Arguments and answers are whatever structured clone can copy. */
export type Commands = Record<string, (argument: never) => Promise<unknown>>;

type Answered<Command> = Command extends (argument: never) => Promise<infer Result> ? Result : never;

/** Another process of the benchmark, that does what it is asked. */
export interface Remote<C extends Commands> {
  pid: number;
  /** @throws Error what it threw there, that it ended, or that there was no answer within `limit` milliseconds */
  ask<Name extends keyof C & string>(
    name: Name,
    argument: Parameters<C[Name]>[0],
    limit: number,
  ): Promise<Answered<C[Name]>>;
  /** Lets it end in its own way; after 30 s by force. */
  stop(): Promise<void>;
}

interface Question {
  id: number;
  name: string;
  argument: unknown;
}

type Answer = { id: number } & ({ result: unknown } | { failure: string });

const stopLimit = 30_000;

/**
 * Starts a module that calls `answer`, in a process group of its own: Ctrl-C in the terminal reaches only this process.
 *
 * @param output where its output goes: a file descriptor, or to where this process writes
 * @param signal stops it
 */
export function openRemote<C extends Commands>(
  file: string,
  output: number | 'inherit',
  signal: AbortSignal,
): Remote<C> {
  const child = fork(file, {
    stdio: ['ignore', output, output, 'ipc'],
    serialization: 'advanced',
    detached: true,
  });
  const open = new Map<number, PromiseWithResolvers<unknown>>();
  let ended = false;
  const exited = once(child, 'exit').then(([code, signal]) => {
    ended = true;
    for (const each of open.values()) each.reject(new Error(`${file} ended (${String(signal ?? code)})`));
  });
  child.on('message', (message) => {
    const answer = message as Answer;
    const question = open.get(answer.id);
    if ('failure' in answer) question?.reject(new Error(answer.failure));
    else question?.resolve(answer.result);
  });

  async function stop(): Promise<void> {
    if (child.connected) child.disconnect();
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimit);
    await exited;
    clearTimeout(timer);
  }
  signal.addEventListener('abort', () => void stop(), { once: true });

  let asked = 0;
  return {
    pid: child.pid!,
    async ask(name, argument, limit) {
      if (ended || !child.connected) throw new Error(`${file} has ended`);
      asked += 1;
      const id = asked;
      const question = Promise.withResolvers<unknown>();
      open.set(id, question);
      const timer = setTimeout(() => question.reject(new Error(`${name}: no answer within ${limit / 1000} s`)), limit);
      child.send({ id, name, argument } satisfies Question);
      try {
        return (await question.promise) as Answered<C[typeof name]>;
      } finally {
        clearTimeout(timer);
        open.delete(id);
      }
    },
    stop,
  };
}

/** Does what the process that started this one asks for. Once that one lets go or is gone, `end` is done and this one ends. */
export function answer(commands: Commands, end: () => Promise<void>): void {
  const reply = (given: Answer) => process.connected && process.send?.(given);
  process.on('message', (message) => {
    const { id, name, argument } = message as Question;
    void commands[name]!(argument as never).then(
      (result) => reply({ id, result }),
      (error: unknown) => reply({ id, failure: error instanceof Error ? error.message : String(error) }),
    );
  });
  process.once('disconnect', () => {
    void end().then(
      () => process.exit(0),
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
}
