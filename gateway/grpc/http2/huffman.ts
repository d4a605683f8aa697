/** The length in bits of each byte's code (RFC 7541, appendix B). The codes are canonical, so the lengths define them. */
const lengths = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26,
];
/** The length of the code EOS, which is all ones. A string is padded with its first bits. */
const endLength = 30;
const end = lengths.length;

/**
 * The codes as an automaton that reads four bits at a time: `next` is the state after them (-1 if there is no such code), `read` the
 * byte that they complete (-1 if none; the shortest code has five bits, so there is one at most).
 */
const { next, read, mayEnd } = buildAutomaton();

function buildAutomaton() {
  /** Inner nodes of the tree of codes: the nodes to which 0 and 1 lead. Leaves are the bytes, as -1 - byte. */
  const nodes: [number, number][] = [[0, 0]];
  const codeLengths = [...lengths, endLength];
  const symbols = [...codeLengths.keys()].sort((a, b) => codeLengths[a]! - codeLengths[b]! || a - b);
  let code = 0;
  let length = 0;
  for (const symbol of symbols) {
    code *= 2 ** (codeLengths[symbol]! - length);
    length = codeLengths[symbol]!;
    let at = 0;
    for (let bit = length - 1; bit > 0; bit--) {
      const way = Math.floor(code / 2 ** bit) % 2;
      if (nodes[at]![way] === 0) nodes[at]![way] = nodes.push([0, 0]) - 1;
      at = nodes[at]![way]!;
    }
    nodes[at]![code % 2] = -1 - symbol;
    code += 1;
  }

  const next = new Int16Array(nodes.length * 16).fill(-1);
  const read = new Int16Array(nodes.length * 16).fill(-1);
  for (let state = 0; state < nodes.length; state++) {
    for (let bits = 0; bits < 16; bits++) {
      let at = state;
      for (let bit = 3; bit >= 0 && at !== -1; bit--) {
        at = nodes[at]![(bits >> bit) & 1]!;
        if (at >= 0) continue;
        const symbol = -1 - at;
        // A string that contains EOS itself is malformed (RFC 7541, 5.2).
        at = symbol === end ? -1 : 0;
        if (symbol !== end) read[state * 16 + bits] = symbol;
      }
      next[state * 16 + bits] = at;
    }
  }
  const mayEnd = new Uint8Array(nodes.length);
  for (let at = 0, ones = 0; ones < 8; ones++) {
    mayEnd[at] = 1;
    at = nodes[at]![1];
  }
  return { next, read, mayEnd };
}

/** The shortest code has five bits. */
const maxBytesPerByte = 8 / 5;

/** Decodes a string of HPACK. @returns undefined if it is malformed */
export function decodeHuffman(bytes: Buffer, start: number, stop: number): string | undefined {
  const text = Buffer.allocUnsafe(Math.ceil((stop - start) * maxBytesPerByte));
  let length = 0;
  let state = 0;
  for (let at = start; at < stop; at++) {
    const byte = bytes[at] as number;
    for (const bits of [byte >> 4, byte & 15]) {
      const step = state * 16 + bits;
      if (read[step] !== -1) text[length++] = read[step] as number;
      state = next[step] as number;
      if (state === -1) return undefined;
    }
  }
  return mayEnd[state] === 1 ? text.toString('latin1', 0, length) : undefined;
}
