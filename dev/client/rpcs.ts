import {
  getOption,
  hasOption,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMethod,
  type DescService,
  type FileRegistry,
} from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { envelopeCode } from '../../gateway/calls/envelope.ts';
import { hubRules } from '../../gateway/dialects/hub/rules.ts';
import { KnownErrors } from '../../gateway/openapi/problems.ts';
import { readRoutes, type Binding } from '../../gateway/rules/bindings.ts';

/** An RPC that the client can call over REST: what its proto says of it. */
export interface Rpc {
  desc: DescMethod;
  verb: string;
  /** As google.api.http has it: `/v1/messages/{message_id}`. */
  path: string;
  /** What travels as the HTTP body: `*` for the whole request, or the name of a field; undefined for nothing. */
  body: string | undefined;
  /** The field that is answered in place of the whole response. */
  responseBody: DescField | undefined;
  /** `bytes` has its body or its answer as bytes and not as JSON: files.ts in the client calls it. */
  kind: 'reply' | 'lines' | 'events' | 'bytes';
  /** What there is of events, where it answers with them. */
  events: Events | undefined;
  isEnveloped: boolean;
  /** Whether anybody may call it, without credentials. */
  isPublic: boolean;
  /** Whether a repetition does no harm (`idempotency_level`). */
  isRepeatable: boolean;
  /** Milliseconds that the client waits for the answer, where that is longer than usual. */
  timeout: number | undefined;
  /** The codes of the errors that its proto declares, sorted. */
  codes: readonly string[];
}

/** What the messages of an RPC have of events (chat4all.options.v1.Events). */
export interface Events {
  /** One of them is the event. Errors are left out: the client throws those. */
  members: readonly DescField[];
  id: DescField;
  /** The field of the request that asks for events; without it they always come. */
  askedBy: DescField | undefined;
  /** Those members whose value is the answer for somebody who doesn't ask for events. */
  last: readonly DescField[];
}

/** chat4all.options.v1.Access.ACCESS_PUBLIC. */
const publicAccess = 1;
/** Milliseconds that the client waits by default (client/caller.ts). */
const usualTimeout = 30_000;
/** Milliseconds that the client waits longer than the hub may take, so that it is told what was wrong. */
const grace = 5_000;

/** Reads which RPCs of the protos can be called over REST, and how. */
export class Rpcs {
  readonly #ofService = new Map<DescService, Rpc[]>();
  readonly #required: DescExtension | undefined;
  /** Codes that any call may end with, beside those of its RPC: of usual problems, and in envelopes. */
  readonly commonCodes: readonly string[];
  readonly envelopedCodes: readonly string[];

  constructor(registry: FileRegistry) {
    this.#required = registry.getExtension('buf.validate.field');
    const errors = new KnownErrors(registry);
    const common = { plain: new Set<string>(), enveloped: new Set<string>() };
    // An RPC may have several HTTP rules: its first one is the client's.
    const seen = new Set<DescMethod>();
    for (const { method: verb, target } of readRoutes(registry, () => true, hubRules)) {
      const { method } = target;
      if (seen.has(method)) continue;
      seen.add(method);
      const rpc = this.#read(registry, verb, target, errors, common);
      if (rpc === undefined) continue;
      const others = this.#ofService.get(method.parent);
      if (others === undefined) this.#ofService.set(method.parent, [rpc]);
      else others.push(rpc);
    }
    this.commonCodes = [...common.plain].toSorted();
    this.envelopedCodes = [...common.enveloped].toSorted();
  }

  all(): Rpc[] {
    return [...this.#ofService.values()].flat();
  }

  of(service: DescService): readonly Rpc[] {
    return this.#ofService.get(service) ?? [];
  }

  /** The services of a file that the client has methods for. */
  services({ services }: DescFile): DescService[] {
    return services.filter((service) => this.of(service).some(({ kind }) => kind !== 'bytes'));
  }

  /** Whether a request without this field is refused. */
  isRequired(field: DescField): boolean {
    const isOption = this.#required !== undefined && hasOption(field, this.#required);
    return isOption && (getOption(field, this.#required!) as unknown as { required: boolean }).required;
  }

  #read(
    registry: FileRegistry,
    verb: string,
    binding: Binding,
    errors: KnownErrors,
    common: { plain: Set<string>; enveloped: Set<string> },
  ): Rpc | undefined {
    const { method, rawBody } = binding;
    const { input, output, methodKind } = method;
    const isAnyBody = [input, output].some(
      (type) => type.typeName === anyBody || type.fields.some(({ message }) => message?.typeName === anyBody),
    );
    // Protocols that have clients of their own, and streams that HTTP has no form for.
    if (binding.isWholeHttp || isAnyBody || methodKind === 'bidi_streaming') return undefined;
    if (methodKind === 'client_streaming' && rawBody === undefined) return undefined;
    const http = getOption(method, registry.getExtension('google.api.http')!) as unknown as HttpRule;
    // Where an event's data is the whole message, a client that asks for no events gets the messages as lines.
    const events =
      binding.events === undefined || binding.events.hasWholeMessages ? undefined : eventsOf(method, binding.events);
    const isEnveloped =
      binding.answers?.style === 'envelope' && events === undefined && !binding.isJoined && rawBody === undefined;
    const bodyKind = rawBody === undefined ? (binding.body === 'none' ? 'none' : 'json') : 'bytes';
    const declared = new Set(
      [...optionList(registry, method.parent, 'known_errors')]
        .filter(({ reason, everywhere }) => everywhere || optionList(registry, method, 'errors').includes(reason))
        .map(({ reason }) => reason as string),
    );
    const codes = new Set<string>();
    for (const { status, code, envelopeCode: own } of errors.problemsOf(binding, [bodyKind])) {
      const told = binding.answers?.style === 'envelope' ? envelopeCode(status, code, own) : code;
      if (declared.has(code)) codes.add(told);
      else common[binding.answers?.style === 'envelope' ? 'enveloped' : 'plain'].add(told);
    }
    const timeout = (binding.timeout ?? 0) + grace;
    return {
      desc: method,
      verb,
      path: (http.pattern.value as { path?: string }).path ?? String(http.pattern.value),
      body: http.body === '' ? undefined : http.body,
      responseBody: output.fields.find(({ name }) => name === http.responseBody),
      kind:
        rawBody !== undefined
          ? 'bytes'
          : events !== undefined
            ? 'events'
            : methodKind === 'server_streaming' && !binding.isJoined
              ? 'lines'
              : 'reply',
      events,
      isEnveloped,
      isPublic: errors.accessOf(binding) === publicAccess,
      isRepeatable: method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
      timeout: timeout > usualTimeout ? timeout : undefined,
      codes: [...codes].toSorted(),
    };
  }
}

const anyBody = 'google.api.HttpBody';

/** google.api.HttpRule, as protobuf-es shows it. */
interface HttpRule {
  pattern: { value: unknown };
  body: string;
  responseBody: string;
}

type ErrorOption = { reason: string; everywhere: boolean };

function optionList(registry: FileRegistry, of: DescService, name: 'known_errors'): ErrorOption[];
function optionList(registry: FileRegistry, of: DescMethod, name: 'errors'): string[];
function optionList(registry: FileRegistry, of: DescService | DescMethod, name: string): unknown {
  const extension = registry.getExtension(`chat4all.options.v1.${name}`);
  return extension === undefined || !hasOption(of, extension) ? [] : getOption(of, extension);
}

function eventsOf(
  { input, output }: DescMethod,
  { members, id, askedBy, last }: NonNullable<Binding['events']>,
): Events {
  const inOutput = ({ number }: { number: number }) => output.fields.find((field) => field.number === number)!;
  const isNoError = (field: DescField) => !isError(field);
  return {
    members: [...members.values()].map(inOutput).filter(isNoError),
    id: inOutput(id),
    askedBy: input.fields.find(({ number }) => number === askedBy?.number),
    last: last.map(inOutput).filter(isNoError),
  };
}

/** Whether it is the error that a stream of events ends with. */
function isError({ name, message }: DescField): boolean {
  if (message?.typeName !== 'google.rpc.Status') return false;
  // client/caller.ts knows it by that.
  if (name !== 'error') throw new Error(`An event that is an error must be called error, and not ${name}`);
  return true;
}
