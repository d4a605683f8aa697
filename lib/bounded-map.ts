/** A map with room for so many entries: where one more is set, the one that was set longest ago goes. */
export class BoundedMap<K, V> extends Map<K, V> {
  readonly #most: number;

  /** @param most at least 1 */
  constructor(most: number) {
    super();
    this.#most = most;
  }

  /** What is there already counts as set anew. */
  override set(key: K, value: V): this {
    this.delete(key);
    if (this.size >= this.#most) this.delete(this.keys().next().value as K);
    return super.set(key, value);
  }
}
