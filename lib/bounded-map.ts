/** A map with a maximum number of entries: to make room for one more, it drops the one that was set longest ago. */
export class BoundedMap<K, V> extends Map<K, V> {
  readonly #maxEntries: number;

  /** @param maxEntries at least 1 */
  constructor(maxEntries: number) {
    super();
    this.#maxEntries = maxEntries;
  }

  /** An entry that is set again counts as new. */
  override set(key: K, value: V): this {
    this.delete(key);
    if (this.size >= this.#maxEntries) this.delete(this.keys().next().value as K);
    return super.set(key, value);
  }
}
