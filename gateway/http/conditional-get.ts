import { hash } from 'node:crypto';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { judge, type EntityTags } from './preconditions.ts';
import { sendWhole } from './lingering-close.ts';

/** Content codings of HTTP that we know (RFC 9110, 8.4.1); identity is none. */
type Coding = 'br' | 'gzip' | 'identity';

const compressGzip = promisify(gzip);
const compressBrotli = promisify(brotliCompress);
/** Bytes from which on compression pays: fewer fit into a packet or two anyway. */
const minCompressedBytes = 2_048;
/** What is compressed for one answer: on the text of lists the level wins as much as any, for half of the time. */
const level = 3;
/** What is compressed once: beyond these, it takes many times as long for a hundredth less. */
const onceLevel = 6;
const onceQuality = 6;

/** Whether the request wants what it may have already: such an answer says how to ask for it again. */
export function isLookup({ req: { method } }: ServerResponse): boolean {
  return method === 'GET' || method === 'HEAD';
}

const text = /^(text\/|application\/(json|openapi\+json)\b)/;

/** Something that can be sent under several codings. */
interface Representation {
  /** What makes its entity tags: it is the same as long as the content is. */
  tag: Tag;
  type: string;
  /** Bytes without any coding. */
  length: number;
  /** Codings that it can be had in for being shorter, the best one first. */
  codings: readonly Coding[];
  /** It in a coding; undefined if it isn't worth finding out for a HEAD. */
  encode(coding: Coding, isHead: boolean): Promise<string | Uint8Array | undefined>;
}

/**
 * Answers a GET or HEAD with what was asked for, JSON by default: only with an entity tag if the client has it already, and
 * compressed if it is a long text and the client understands gzip. Whether the caller may have it was asked before.
 *
 * Compression tells who can watch the length of many answers about what is in them next to a text of his own choosing (BREACH).
 * For that he must make the victim's browser send the requests; without cookies it doesn't, since the token is no part of them.
 *
 * @param lasting what of the content is the same whenever it is asked for, of which the entity tag is made
 */
export async function answerLookup(
  response: ServerResponse,
  content: string | Uint8Array,
  headers: OutgoingHttpHeaders = {},
  lasting = content,
): Promise<void> {
  // It is for those who may have it, and they ask each time.
  headers['Cache-Control'] ??= 'private, no-cache';
  const type = (headers['Content-Type'] as string | undefined) ?? 'application/json';
  const length = Buffer.byteLength(content);
  const codings = codingsOf(type, length, ['gzip']);
  await answer(response, headers, {
    tag: tagOf(lasting, lasting !== content),
    type,
    length,
    codings,
    encode: async (coding, isHead) => {
      if (coding === 'identity') return content;
      return isHead ? undefined : await compressGzip(content, { level });
    },
  });
}

/** Something that never changes. It is hashed once, and compressed once for each coding, when that is first asked for. */
export class Fixed implements Representation {
  readonly tag: Tag;
  readonly type: string;
  readonly length: number;
  readonly codings: readonly Coding[];
  readonly #content: Buffer;
  readonly #encoded = new Map<Coding, Promise<Buffer>>();

  /** @param type its Content-Type */
  constructor(content: string | Buffer, type: string) {
    this.#content = Buffer.from(content);
    this.tag = tagOf(this.#content);
    this.type = type;
    this.length = this.#content.length;
    this.codings = codingsOf(type, this.length, ['br', 'gzip']);
  }

  encode(coding: Coding): Promise<Buffer> {
    let encoded = this.#encoded.get(coding);
    if (encoded === undefined) {
      encoded = this.#compress(coding);
      this.#encoded.set(coding, encoded);
      encoded.catch(() => this.#encoded.delete(coding));
    }
    return encoded;
  }

  async #compress(coding: Coding): Promise<Buffer> {
    if (coding === 'identity') return this.#content;
    if (coding === 'gzip') return compressGzip(this.#content, { level: onceLevel });
    const params = {
      [constants.BROTLI_PARAM_QUALITY]: onceQuality,
      [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
      [constants.BROTLI_PARAM_SIZE_HINT]: this.length,
    };
    return compressBrotli(this.#content, { params });
  }
}

/** Answers a GET or HEAD with something that everybody may have. Caches ask each time, unless the headers say otherwise. */
export function answerFixed(response: ServerResponse, fixed: Fixed, headers: OutgoingHttpHeaders = {}): Promise<void> {
  return answer(response, { 'Cache-Control': 'no-cache', ...headers }, fixed);
}

async function answer(response: ServerResponse, headers: OutgoingHttpHeaders, given: Representation): Promise<void> {
  const { req: request } = response;
  const { tag, codings, length } = given;
  const coding = codingFor(request.headers['accept-encoding'], codings);
  if (codings.length > 0 || coding !== 'identity') response.appendHeader('Vary', 'Accept-Encoding');
  const isKnown = judge(request.method as string, request.headers, tagsOf(tag));
  headers['ETag'] = entityTag(tag, coding);
  if (isKnown) {
    delete headers['Content-Type'];
    if (!response.headersSent && !response.destroyed) sendWhole(response, 304, headers);
    return;
  }
  headers['Content-Type'] = given.type;
  const isHead = request.method === 'HEAD';
  const body = coding === 'identity' && isHead ? undefined : await given.encode(coding, isHead);
  if (coding !== 'identity') headers['Content-Encoding'] = coding;
  if (coding === 'identity') headers['Content-Length'] = length;
  else if (body !== undefined) headers['Content-Length'] = body.length;
  if (!response.headersSent && !response.destroyed) sendWhole(response, 200, headers, isHead ? undefined : body);
}

interface Tag {
  hash: string;
  /** Whether something of the content isn't in it. */
  isWeak: boolean;
}

function tagOf(content: string | Uint8Array, isWeak = false): Tag {
  return { hash: hash('sha1', content, 'base64url'), isWeak };
}

/** Each coding has a tag of its own, unless the tag is weak: the bytes are others (RFC 9110, 8.8.3.3). */
function entityTag({ hash, isWeak }: Tag, coding: Coding): string {
  return isWeak ? `W/"${hash}"` : `"${opaqueOf(hash, coding)}"`;
}

function opaqueOf(hash: string, coding: Coding): string {
  return coding === 'identity' ? hash : `${hash}-${coding}`;
}

function tagsOf({ hash, isWeak }: Tag): EntityTags {
  return { opaque: (['identity', 'gzip', 'br'] as const).map((coding) => opaqueOf(hash, coding)), isWeak };
}

/** The entity tags that something has with whose content a GET is answered (`answerLookup`). */
export function entityTags(content: string | Uint8Array, lasting = content): EntityTags {
  return tagsOf(tagOf(lasting, lasting !== content));
}

function codingsOf(type: string, length: number, shorter: readonly Coding[]): readonly Coding[] {
  return length >= minCompressedBytes && text.test(type) ? shorter : [];
}

/**
 * The coding that Accept-Encoding asks for (RFC 9110, 12.5.3): the one with the highest weight, the first of `shorter` among
 * equals. What isn't worth compressing goes as it is, unless that is refused. A header that refuses everything is disregarded,
 * which HTTP leaves to us (12.1): an answer that may be of no use is better than none.
 *
 * @param shorter codings that are worth it, the best one first
 */
export function codingFor(accepted: string | undefined, shorter: readonly Coding[]): Coding {
  if (accepted === undefined) return 'identity';
  const weights = weightsIn(accepted);
  const any = weights.get('*');
  // Of no coding nothing need be said for it to be taken, if nothing else fits.
  const weightOf = (coding: Coding) => weights.get(coding) ?? any ?? (coding === 'identity' ? Number.MIN_VALUE : 0);
  if (shorter.length === 0) return weightOf('identity') === 0 && weightOf('gzip') > 0 ? 'gzip' : 'identity';
  let best: Coding = 'identity';
  for (const coding of shorter.toReversed())
    if (weightOf(coding) > 0 && weightOf(coding) >= weightOf(best)) best = coding;
  return best;
}

/** The weight of each coding that Accept-Encoding names; one whose weight is no number from 0 to 1 counts as not named. */
function weightsIn(accepted: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const entry of accepted.toLowerCase().split(',')) {
    const [name = '', ...parameters] = entry.split(';').map((part) => part.trim());
    const coding = name === 'x-gzip' ? 'gzip' : name;
    let weight = 1;
    for (const parameter of parameters) {
      const [key = '', value = ''] = parameter.split('=').map((part) => part.trim());
      if (key === 'q') weight = /^[01](\.\d*)?$/.test(value) ? Number(value) : Number.NaN;
    }
    if (coding !== '' && weight >= 0 && weight <= 1) weights.set(coding, weight);
  }
  return weights;
}
