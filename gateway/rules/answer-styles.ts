import { getOption, hasOption, type DescExtension, type DescMethod, type DescService } from '@bufbuild/protobuf';
import type { Binding } from './bindings.ts';
import { parseTemplate, RouteError, type Route } from './path-template.ts';

/** The styles of answers other than the default (chat4all.options.v1.AnswerStyle). */
export type AnswerStyle = 'envelope' | 'problem with message' | 'problem with error';

/** How the answers of a service look, where its proto says so (chat4all.options.v1.answers). */
export interface Answers {
  style: AnswerStyle;
  /** The path that all of its RPCs are below, without a slash at the end; undefined if each is by itself. */
  under: string | undefined;
}

/** chat4all.options.v1.AnswerStyle. */
const styles: Readonly<Record<number, AnswerStyle>> = {
  1: 'envelope',
  2: 'problem with message',
  3: 'problem with error',
};

/** chat4all.options.v1.Error, as protobuf-es shows it when it only has the descriptor. */
export interface KnownErrorOption {
  reason: string;
  everywhere: boolean;
}

/**
 * What a service says of its answers; undefined if it wants them as all others are.
 *
 * @throws RouteError if that isn't usable
 */
export function readAnswers(service: DescService, extension: DescExtension | undefined): Answers | undefined {
  if (extension === undefined || !hasOption(service, extension)) return undefined;
  const { style: number, under } = getOption(service, extension) as unknown as { style: number; under: string };
  if (number === 0) return undefined;
  const style = styles[number];
  if (style === undefined) throw new RouteError(`${service.typeName} has an unknown style of answers: ${number}`);
  if (under === '') return { style, under: undefined };
  const { steps, verb } = parseTemplate(under);
  if (steps.length === 0 || verb !== undefined || steps.some(({ kind }) => kind !== 'literal')) {
    throw new RouteError(`${service.typeName} has its answers under ${under}, which is no path without variables`);
  }
  return { style, under };
}

/**
 * The codes under which an envelope tells the errors of an RPC, by their reason: those of its service that not every service has
 * keep their reason, unless the RPC names another code.
 *
 * @throws RouteError if there is a code, but no envelope
 */
export function readCodes(
  method: DescMethod,
  answers: Answers | undefined,
  known: readonly KnownErrorOption[],
  named: readonly { reason: string; code: string }[],
): ReadonlyMap<string, string> | undefined {
  const others = named.filter(({ code }) => code !== '').map(({ reason, code }) => [reason, code] as const);
  if (answers?.style === 'envelope') {
    const own = known.filter(({ everywhere }) => !everywhere).map(({ reason }) => [reason, reason] as const);
    return new Map([...own, ...others]);
  }
  if (others.length === 0) return undefined;
  throw new RouteError(`${method.parent.typeName}.${method.name} has a code for an error, but answers in no envelope`);
}

/** A path below which all is answered in a style. */
export interface StyledPath {
  style: AnswerStyle;
  /** Without a slash at the end. */
  path: string;
  /** Its segments. */
  segments: readonly string[];
}

/**
 * The paths below which all is answered in a style, each once, a longer one before those that it is below. Of a service that names
 * none these are the beginnings of its RPCs' paths, up to the first variable.
 */
export function styledPaths(routes: readonly Route<Binding>[]): StyledPath[] {
  const all = routes.flatMap(({ template: { steps }, target: { answers } }) => {
    if (answers === undefined) return [];
    if (answers.under !== undefined) return styledPath(answers.style, answers.under.slice(1).split('/'));
    const end = steps.findIndex(({ kind }) => kind !== 'literal');
    const literals = steps.slice(0, end === -1 ? steps.length : end);
    return styledPath(
      answers.style,
      literals.flatMap((step) => (step.kind === 'literal' ? step.text : [])),
    );
  });
  const once = [...new Map(all.map((each) => [each.path, each])).values()];
  return once.toSorted((one, other) => other.segments.length - one.segments.length);
}

function styledPath(style: AnswerStyle, segments: readonly string[]): StyledPath {
  return { style, segments, path: `/${segments.join('/')}` };
}

/** The paths below which all is answered in an envelope. */
export function envelopedPaths(routes: readonly Route<Binding>[]): string[] {
  return styledPaths(routes)
    .filter(({ style }) => style === 'envelope')
    .map(({ path }) => path);
}

/**
 * The paths below that of a service's answers which belong to others: no variable of the service's RPCs takes what is there.
 *
 * @param paths all that are answered in a style
 */
export function othersBelow({ answers }: Binding, paths: readonly StyledPath[]): (readonly string[])[] {
  const under = answers?.under;
  if (under === undefined) return [];
  return paths.filter(({ path }) => path.startsWith(`${under}/`)).map(({ segments }) => segments);
}

/**
 * Makes sure that a path alone says in which style it is answered, whatever becomes of the request.
 *
 * @throws RouteError
 */
export function checkPrefixes(routes: readonly Route<Binding>[]): void {
  const paths = styledPaths(routes);
  for (const { template, target } of routes) {
    const { method, answers } = target;
    const found = paths.find(({ path }) => template.text.startsWith(`${path}/`) || template.text === path);
    const isBelow = answers?.under === undefined || template.text.startsWith(`${answers.under}/`);
    if (found?.style === answers?.style && isBelow) continue;
    const where =
      answers?.under === undefined ? `is under ${found!.path}, where others` : `is not under ${answers.under}, but`;
    throw new RouteError(
      `The HTTP rule of ${method.parent.typeName}.${method.name} ${where} answer in a style of their own`,
    );
  }
  for (const { target } of routes) {
    const { answers, method, rawBody, output, events, isJoined, isWholeHttp } = target;
    const isStream = method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming';
    const hasForm = answers?.style !== 'envelope' && (events !== undefined || isJoined || isWholeHttp);
    if (answers === undefined || !isStream || rawBody !== undefined || hasForm) continue;
    throw new RouteError(
      `${method.parent.typeName}.${method.name} streams ${output.typeName}, for which its style of answers has no form`,
    );
  }
}

/** Whether a path is one, or is below it. Parts of it may be percent-encoded. */
export function isUnder(prefix: readonly string[], pathname: string): boolean {
  const segments = pathname.split('/', prefix.length + 1).slice(1);
  return prefix.every((name, index) => segments[index] === name || decoded(segments[index]) === name);
}

function decoded(segment: string | undefined): string | undefined {
  try {
    return segment === undefined ? undefined : decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}
