import { getOption, hasOption, type DescExtension, type DescMethod, type DescService } from '@bufbuild/protobuf';
import type { Binding } from './bindings.ts';
import { parseTemplate, RouteError, type Route } from './routes.ts';

/** How the answers of a service look, where its proto says so (chat4all.options.v1.answers). */
export interface Answers {
  style: 'envelope';
  /** The path that all of its RPCs are below, without a slash at the end. */
  under: string;
}

/** chat4all.options.v1.AnswerStyle. */
const styles: Readonly<Record<number, Answers['style']>> = { 1: 'envelope' };

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
  if (answers !== undefined) {
    const own = known.filter(({ everywhere }) => !everywhere).map(({ reason }) => [reason, reason] as const);
    return new Map([...own, ...others]);
  }
  if (others.length === 0) return undefined;
  throw new RouteError(`${method.parent.typeName}.${method.name} has a code for an error, but answers in no envelope`);
}

/** The paths below which all is answered in a style, each once. */
export function answersOf(routes: readonly Route<Binding>[]): Answers[] {
  const all = routes.flatMap(({ target: { answers } }) => answers ?? []);
  return [...new Map(all.map((answers) => [answers.under, answers])).values()];
}

/**
 * Makes sure that a path alone says in which style it is answered, whatever becomes of the request.
 *
 * @throws RouteError
 */
export function checkPrefixes(routes: readonly Route<Binding>[]): void {
  const prefixes = answersOf(routes);
  for (const { template, target } of routes) {
    const { method, answers } = target;
    const found = prefixes.find(({ under }) => template.text.startsWith(`${under}/`) || template.text === under);
    if (found?.style === answers?.style) continue;
    const where =
      answers === undefined ? `is under ${found!.under}, where others` : `is not under ${answers.under}, but`;
    throw new RouteError(
      `The HTTP rule of ${method.parent.typeName}.${method.name} ${where} answer in a style of their own`,
    );
  }
  for (const { target } of routes) {
    const { answers, method, rawBody, output } = target;
    const isStream = method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming';
    if (answers === undefined || !isStream || rawBody !== undefined) continue;
    throw new RouteError(
      `${method.parent.typeName}.${method.name} streams ${output.typeName}, for which there is no envelope`,
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
