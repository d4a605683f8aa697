/** Bytes of a piece that is worth keeping as it is: what a smaller one costs beside its bytes is more than to copy it. */
const worthKeeping = 4 * 1024;
/** The first pieces are kept in any case: most answers have no more. */
const plainPieces = 16;
const largestTail = 1024 * 1024;

/** Gathers what comes in pieces. It takes about as much memory as their bytes, however small they are. */
export class Gathered {
  #pieces: Buffer[] = [];
  /** Small pieces one behind the other, and how many bytes of it are theirs. */
  #tail = Buffer.alloc(0);
  #filled = 0;
  size = 0;

  /** How many buffers hold it. */
  get parts(): number {
    return this.#pieces.length + (this.#filled > 0 ? 1 : 0);
  }

  push(piece: Buffer): void {
    this.size += piece.length;
    if (piece.length >= worthKeeping || this.#pieces.length < plainPieces) {
      this.#seal();
      this.#pieces.push(piece);
      return;
    }
    if (this.#filled + piece.length > this.#tail.length) {
      const { length } = this.#tail;
      this.#seal();
      this.#tail = Buffer.allocUnsafe(Math.min(largestTail, Math.max(2 * worthKeeping, 2 * length)));
    }
    this.#filled += piece.copy(this.#tail, this.#filled);
  }

  /** The first bytes. */
  begin(size: number): Buffer {
    const [first] = this.#pieces;
    return first !== undefined && first.length >= size ? first : this.whole();
  }

  whole(): Buffer {
    this.#seal();
    if (this.#pieces.length !== 1) this.#pieces = [Buffer.concat(this.#pieces, this.size)];
    return this.#pieces[0] as Buffer;
  }

  clear(): void {
    this.#pieces = [];
    this.#tail = Buffer.alloc(0);
    this.#filled = 0;
  }

  #seal(): void {
    if (this.#filled > 0) this.#pieces.push(this.#tail.subarray(0, this.#filled));
    this.#tail = this.#tail.subarray(this.#filled);
    this.#filled = 0;
  }
}
