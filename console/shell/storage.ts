/** What the browser keeps for the console. A browser may forbid that, or have no room left: then nothing is kept. */
export class Kept {
  readonly #storage: () => Storage;
  readonly #prefix: string;

  /** @param prefix goes before the names, so that other pages of this origin have their own */
  constructor(storage: () => Storage, prefix = 'chat4all.') {
    this.#storage = storage;
    this.#prefix = prefix;
  }

  get(name: string): unknown {
    try {
      const text = this.#storage().getItem(this.#prefix + name);
      return text === null ? undefined : JSON.parse(text);
    } catch {
      return undefined;
    }
  }

  /** @param value undefined removes it */
  set(name: string, value: unknown): void {
    try {
      if (value === undefined) this.#storage().removeItem(this.#prefix + name);
      else this.#storage().setItem(this.#prefix + name, JSON.stringify(value));
    } catch {
      // Then it lasts as long as the page does.
    }
  }

  /** The names that begin so. */
  names(beginning: string): string[] {
    try {
      return Object.keys(this.#storage())
        .filter((name) => name.startsWith(this.#prefix + beginning))
        .map((name) => name.slice(this.#prefix.length));
    } catch {
      return [];
    }
  }
}

/** Until the browser forgets it: drafts, messages that are not accepted yet, the choice of colours. Never a token. */
export const kept = new Kept(() => localStorage);
/** As long as this tab lives. */
export const keptInTab = new Kept(() => sessionStorage);
