import { getOption, hasOption, type DescExtension, type DescService } from '@bufbuild/protobuf';
import { registry } from '#lib/rpc/schema.ts';
import { hubRules } from '../../gateway/dialects/hub/rules.ts';
import { httpStatusOf } from '../../gateway/http/problem.ts';
import { generalProblems } from '../../gateway/openapi/problems.ts';
import { readRoutes } from '../../gateway/rules/bindings.ts';
import { code, madeOf, prose, table } from './markdown.ts';

/** docs/reference-errors.md, of `known_errors` and `errors` in the protos and of what the gateway answers by itself. */

/** chat4all.options.v1.Error, as protobuf-es shows it. */
interface KnownError {
  code: number;
  reason: string;
  when: string;
  everywhere: boolean;
}

interface Found extends KnownError {
  service: string;
  /** An RPC of it; undefined for all of them. */
  rpc: string | undefined;
  http: number;
}

/** @returns docs/reference-errors.md */
export function errorsPage(): string {
  const general = [...Map.groupBy(generalProblems, ({ code: reason, status: http }) => `${reason} ${http}`).values()]
    .map((same): [reason: string, http: number, when: string] => {
      const [{ code: reason, status: http }] = same as [(typeof same)[number]];
      return [reason, http, distinct(same.map(({ when }) => when)).join('; or ')];
    })
    .toSorted(([a, first], [b, second]) => first - second || (a < b ? -1 : 1))
    .map(([reason, http, when]) => [code(reason), String(http), prose(when)]);
  const single = [...Map.groupBy(declared(), ({ reason }) => reason)]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([reason, all]) => [
      code(reason),
      distinct(all.map((each) => statusName(each.code))).join(', '),
      distinct(all.map(({ http }) => String(http))).join(', '),
      prose(distinct(all.map(({ when }) => when)).join('; or ')),
      callers(all),
    ]);
  return `# Errors

${madeOf('the protos (`known_errors`, `errors`, `http_errors`) and from what the gateway answers by itself')}

Over REST an error is \`application/problem+json\` (RFC 9457) with an \`error_code\`, one of those below, for programs; \`detail\` is a sentence for people,
\`field_errors\` names all wrong fields at once, and \`request_id\` is in every log line about it. Below \`/api/v1\` it is the member \`error\` of the
envelope, with the same code as \`code\` unless [the documentation of the API](http://localhost:8000/docs) says another one. Over gRPC the code is the
\`reason\` of the status's \`google.rpc.ErrorInfo\`.

**What to try again**: 429, 502, 503 and 504, after the seconds in \`Retry-After\` where there is one, with the same \`message_id\` or
idempotency key. With 503 \`BUS_UNAVAILABLE\`, \`CHANNEL_OVERLOADED\` or \`OVERLOADED\` nothing was stored; with others the call may have got through
([guarantees](guarantees.md)). All else fails again in the same way.

## Errors of any call

Any RPC that such a thing may happen to: what has no token, body or path in its request is never told that it is wrong.

${table(['error_code', 'HTTP', 'when'], general)}

## Errors of single calls

A service without calls in parentheses may answer any of them so; \`all\` stands for all services.

${table(['error_code', 'gRPC', 'HTTP', 'when', 'calls'], single)}
`;
}

/** Every error that the protos declare, for each RPC that may end with it. */
function declared(): Found[] {
  const known = extension('known_errors');
  const errors = extension('errors');
  const routes = readRoutes(registry, () => true, hubRules);
  return servicesWithErrors(known).flatMap((service) =>
    (getOption(service, known) as unknown as KnownError[]).flatMap((error): Found[] => {
      const named = service.methods.filter((method) =>
        (getOption(method, errors) as unknown as string[]).includes(error.reason),
      );
      const usual = httpStatusOf(error.code);
      const statusOf = (name: string) =>
        routes
          .find(({ target: { method } }) => method.parent === service && method.name === name)
          ?.target.errorStatuses.get(error.reason) ?? usual;
      return error.everywhere
        ? [{ ...error, service: service.name, rpc: undefined, http: usual }]
        : named.map(({ name }) => ({ ...error, service: service.name, rpc: name, http: statusOf(name) }));
    }),
  );
}

function servicesWithErrors(known: DescExtension): DescService[] {
  const services = [...registry].filter((type): type is DescService => type.kind === 'service');
  return services.filter((service) => hasOption(service, known));
}

/** Which calls end with an error: `FileService (GetFile, DeleteFile), MessageService`. */
function callers(all: readonly Found[]): string {
  const services = [...Map.groupBy(all, ({ service }) => service)];
  const isEverywhere = all.every(({ rpc }) => rpc === undefined);
  if (isEverywhere && services.length === servicesWithErrors(extension('known_errors')).length) return 'all';
  return services
    .map(([service, found]) => {
      const rpcs = found.flatMap(({ rpc }) => rpc ?? []);
      return rpcs.length === 0 ? service : `${service} (${rpcs.join(', ')})`;
    })
    .join(', ');
}

/** The name of a gRPC status. */
function statusName(number: number): string {
  const found = registry.getEnum('google.rpc.Code')?.values.find((value) => value.number === number);
  if (found === undefined) throw new Error(`There is no status ${number}`);
  return found.name;
}

function extension(name: string): DescExtension {
  const found = registry.getExtension(`chat4all.options.v1.${name}`);
  if (found === undefined) throw new Error(`There is no option ${name}`);
  return found;
}

function distinct(some: readonly string[]): string[] {
  return [...new Set(some)];
}
