/** Incremental SHA-256 (FIPS 180-4), since the Web Crypto API hashes only contents that are in memory as a whole. */
export interface Hash {
  update(bytes: Uint8Array): unknown;
  /** The 32 bytes of the digest. May be called once. */
  digest(): Uint8Array;
}

/** Node's own implementation where there is one, since it is several times as fast. */
export function beginSha256(): Hash {
  type Builtin = { getBuiltinModule?(name: string): { createHash(name: string): Hash } | undefined };
  const { process } = globalThis as { process?: Builtin };
  return process?.getBuiltinModule?.('node:crypto')?.createHash('sha256') ?? new Sha256();
}

/** The first 32 bits of the fractional parts of the roots of the first primes: square roots, then cube roots. */
function fractionsOf(root: (prime: number) => number, count: number): Int32Array {
  const found: number[] = [];
  for (let candidate = 2; found.length < count; candidate += 1) {
    let isPrime = true;
    for (let divisor = 2; divisor * divisor <= candidate; divisor += 1) isPrime &&= candidate % divisor !== 0;
    if (isPrime) found.push(Math.floor((root(candidate) % 1) * 2 ** 32));
  }
  return Int32Array.from(found, (bits) => bits | 0);
}

const blockSize = 64;
const constants = fractionsOf(Math.cbrt, 64);

export class Sha256 implements Hash {
  readonly #state = fractionsOf(Math.sqrt, 8);
  readonly #words = new Int32Array(64);
  readonly #block = new Uint8Array(blockSize);
  /** Bytes in the block. */
  #filled = 0;
  /** Bytes in all. */
  #length = 0;

  update(bytes: Uint8Array): this {
    this.#length += bytes.length;
    let at = 0;
    if (this.#filled > 0) {
      at = Math.min(blockSize - this.#filled, bytes.length);
      this.#block.set(bytes.subarray(0, at), this.#filled);
      this.#filled += at;
      if (this.#filled < blockSize) return this;
      this.#take(this.#block, 0);
    }
    for (; at + blockSize <= bytes.length; at += blockSize) this.#take(bytes, at);
    this.#block.set(bytes.subarray(at));
    this.#filled = bytes.length - at;
    return this;
  }

  digest(): Uint8Array {
    const bits = this.#length * 8;
    // Padding: a one bit, zeros, and the length in bits as 8 bytes, up to the end of a block.
    const padded = new Uint8Array((this.#filled < 56 ? 64 : 128) - this.#filled);
    padded[0] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(padded.length - 4, bits >>> 0);
    this.update(padded);
    const digest = new DataView(new ArrayBuffer(32));
    this.#state.forEach((word, index) => digest.setInt32(index * 4, word));
    return new Uint8Array(digest.buffer);
  }

  /** Processes the block that begins at `at`. */
  #take(bytes: Uint8Array, at: number): void {
    const w = this.#words;
    for (let index = 0; index < 16; index += 1) {
      const from = at + index * 4;
      w[index] = (bytes[from]! << 24) | (bytes[from + 1]! << 16) | (bytes[from + 2]! << 8) | bytes[from + 3]!;
    }
    for (let index = 16; index < 64; index += 1) {
      const x = w[index - 15]!;
      const y = w[index - 2]!;
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[index] = (w[index - 16]! + s0 + w[index - 7]! + s1) | 0;
    }
    const state = this.#state;
    let a = state[0]!;
    let b = state[1]!;
    let c = state[2]!;
    let d = state[3]!;
    let e = state[4]!;
    let f = state[5]!;
    let g = state[6]!;
    let h = state[7]!;
    for (let index = 0; index < 64; index += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + constants[index]! + w[index]!) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
    state[4]! += e;
    state[5]! += f;
    state[6]! += g;
    state[7]! += h;
  }
}
