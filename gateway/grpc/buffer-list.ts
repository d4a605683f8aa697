/** Smaller pieces are copied together: a Buffer object costs more than to copy its bytes. */
const minKeptBytes = 4 * 1024;
/** So many pieces are kept as they are in any case: most answers have no more. */
const maxPlainPieces = 16;
const maxTailBytes = 1024 * 1024;

/** Collects bytes that come in pieces, in about as much memory as they have bytes, however small the pieces are. */
export class BufferList {
  #pieces: Buffer[] = [];
  /** Small pieces, copied one after the other, and how many bytes they fill. */
  #tail = Buffer.alloc(0);
  #filled = 0;
  size = 0;

  /** How many buffers hold it. */
  get parts(): number {
    return this.#pieces.length + (this.#filled > 0 ? 1 : 0);
  }

  push(piece: Buffer): void {
    this.size += piece.length;
    if (piece.length >= minKeptBytes || this.#pieces.length < maxPlainPieces) {
      this.#seal();
      this.#pieces.push(piece);
      return;
    }
    if (this.#filled + piece.length > this.#tail.length) {
      const { length } = this.#tail;
      this.#seal();
      this.#tail = Buffer.allocUnsafe(Math.min(maxTailBytes, Math.max(2 * minKeptBytes, 2 * length)));
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
    this.size = 0;
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
