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

/** An RPC that has an HTTP rule, with the options of its proto. */
export interface Rpc {
  desc: DescMethod;
  verb: string;
  /** As google.api.http has it: `/v1/messages/{message_id}`. */
  path: string;
  /** The HTTP body: `*` for the whole request, or the name of a field; undefined if there is none. */
  body: string | undefined;
  /** The field that is the HTTP response, if not the whole message is. */
  responseBody: DescField | undefined;
  /** How it responds. `bytes` means that the request or the response is bytes instead of JSON: client/files.ts calls such RPCs. */
  kind: 'reply' | 'lines' | 'events' | 'bytes';
  events: Events | undefined;
  isEnveloped: boolean;
  /** Whether it takes no credentials. */
  isPublic: boolean;
  /** Whether it is safe to repeat (`idempotency_level`). */
  isRepeatable: boolean;
  /** The client's timeout in milliseconds, if it is longer than usual. */
  timeout: number | undefined;
  /** The codes of the errors that its proto declares, sorted. In an envelope they are the envelope's codes. */
  codes: readonly string[];
}

/** How the messages of an RPC are mapped to events (chat4all.options.v1.Events). */
export interface Events {
  /** The members of the oneof, without the error, which the client throws. */
  members: readonly DescField[];
  id: DescField;
  /** The field of the request that asks for events; undefined if the RPC always responds with events. */
  askedBy: DescField | undefined;
  /** The members whose value is the response if events are not asked for. */
  last: readonly DescField[];
}

/** chat4all.options.v1.Access.ACCESS_PUBLIC. */
const publicAccess = 1;
/** The client's default timeout in milliseconds (client/caller.ts). */
const usualTimeout = 30_000;
/** Milliseconds that the client waits longer than the hub's own limit, to get the hub's error instead of a timeout. */
const grace = 5_000;

/** The RPCs that can be called over REST. */
export class Rpcs {
  readonly #ofService = new Map<DescService, Rpc[]>();
  readonly #required: DescExtension | undefined;
  /** Error codes of all RPCs: those in problem+json, and those in envelopes. */
  readonly commonCodes: readonly string[];
  readonly envelopedCodes: readonly string[];

  constructor(registry: FileRegistry) {
    this.#required = registry.getExtension('buf.validate.field');
    const errors = new KnownErrors(registry);
    const common = { plain: new Set<string>(), enveloped: new Set<string>() };
    // Of several HTTP rules the client uses the first.
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

  /** The services of a file for which the client has methods. */
  services({ services }: DescFile): DescService[] {
    return services.filter((service) => this.of(service).some(({ kind }) => kind !== 'bytes'));
  }

  /** Whether validation requires the field. */
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
    // Other protocols over HTTP, which have their own clients, and streams of requests.
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

/** Whether a member is the error that ends a stream of events. */
function isError({ name, message }: DescField): boolean {
  if (message?.typeName !== 'google.rpc.Status') return false;
  // client/caller.ts recognizes it by this name.
  if (name !== 'error') throw new Error(`An event that is an error must be called error, and not ${name}`);
  return true;
}
