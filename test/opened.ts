import { randomBytes } from 'node:crypto';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';

/** Something that the tests of a file share. */
export interface Opening<T extends object> {
  open(): T | Promise<T>;
  close?: ((value: T) => unknown) | undefined;
  /** What can be read of it before it is open: tests are declared by it. */
  known?: Partial<T>;
}

/** What is open, the last opened last. */
const shared = new AsyncDisposableStack();
let isUsed = false;

/**
 * What the tests of a file share, opened by a hook before the first of them. Loading a test file opens nothing: AVA runs no
 * hook where all tests are skipped, and what was open would keep the process alive.
 *
 * @param open runs after that of whatever the file has declared so before
 * @param close runs after the last test and before that of whatever was declared before; also where something has failed
 * @returns stands for what `open` returns. Tests, hooks and the `open` of what is declared later use it as if it were
 *   that; before, its members can be taken out of it (`const { people } = mesh`) and stand for themselves in the same way
 */
export function opened<T extends object>(open: Opening<T>['open'], close?: Opening<T>['close']): T {
  return openedTogether([{ open, close }])[0]!;
}

/** Several that are opened at once, and closed at once. */
export function openedTogether<T extends object>(openings: readonly Opening<T>[]): T[] {
  if (!isUsed) test.after.always('what the tests share is closed', () => shared.disposeAsync());
  isUsed = true;
  const values: T[] = [];
  test.serial.before('what the tests share is opened', async () => {
    const closings: (() => unknown)[] = [];
    shared.defer(async () => void (await Promise.all(closings.map((close) => close()))));
    const outcomes = await Promise.allSettled(
      openings.map(async ({ open, close }, index) => {
        const value = await open();
        values[index] = value;
        if (close) closings.push(() => close(value));
      }),
    );
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  });
  return openings.map(({ known }, index) => standIn(() => values[index], 'it', known));
}

/** A folder for the tests of a file, with a name of its own that begins so. PostgreSQL and others get in: mode 0755. */
export function openedFolder(prefix: string): string {
  const folder = path.join(tmpdir(), `${prefix}${randomBytes(6).toString('hex')}`);
  const make = async () => {
    await mkdir(folder);
    // Whatever the umask is: PostgreSQL runs as another user where we are root.
    await chmod(folder, 0o755);
    return { folder };
  };
  opened(make, () => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** An object or function that does what another does, once that is there. */
function standIn<T extends object>(find: () => T | undefined, name: string, known: Partial<T> = {}): T {
  const found = (): T => {
    const value = find();
    if (value === undefined) throw new Error(`${name} is used before the hook that opens it`);
    if (Object(value) === value) return value;
    throw new Error(`${name} is no object, so it can only be read in a test: ${typeof value}`);
  };
  const memberOf = (value: T, key: string | symbol | number): unknown => {
    const member: unknown = Reflect.get(value, key);
    // A method may need what only the object itself has, such as private fields.
    return typeof member === 'function' ? member.bind(value) : member;
  };
  const later = (key: string | number) =>
    standIn(() => (find() === undefined ? undefined : (memberOf(found(), key) as object)), `${name}.${key}`);
  function* members() {
    for (let index = 0; ; index++) yield later(index);
  }
  return new Proxy((() => {}) as unknown as T, {
    get(_target, key) {
      if (find() !== undefined) return memberOf(found(), key);
      if (Object.hasOwn(known, key)) return Reflect.get(known, key);
      if (key === Symbol.iterator) return members;
      // Nothing that is to be waited for: `await` asks for it.
      if (key === 'then') return undefined;
      return typeof key === 'symbol' ? found() : later(key);
    },
    apply: (_target, _this, args) => Reflect.apply(found() as Function, undefined, args),
    set: (_target, key, value) => Reflect.set(found(), key, value),
    has: (_target, key) => Reflect.has(found(), key),
    ownKeys: () => Reflect.ownKeys(found()),
    getPrototypeOf: () => Reflect.getPrototypeOf(found()),
    getOwnPropertyDescriptor(_target, key) {
      const descriptor = Reflect.getOwnPropertyDescriptor(found(), key);
      // What the proxy itself doesn't have may not be called permanent.
      return descriptor && { ...descriptor, configurable: true };
    },
  });
}
