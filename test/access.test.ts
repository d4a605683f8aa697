import { readdirSync } from 'node:fs';
import path from 'node:path';
import { getOption } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import test, { type ExecutionContext } from 'ava';
import {
  credentials,
  loadPackageDefinition,
  Metadata,
  type Client,
  type ClientReadableStream,
  type ClientWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { v4 as uuid } from 'uuid';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { generateKeys, identitySettings, openIdentities } from '#lib/identity.ts';
import { loadConfig } from '#lib/config.ts';
import type { HubError } from '#lib/errors.ts';
import type { UnaryMethod } from '#lib/rpc/methods.ts';
import {
  accessOf,
  callersOf as namedCallers,
  isBearerOnly,
  isStanding,
  method,
  registry,
  type Access,
} from '#lib/rpc/schema.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import { openHarness, packagesOf, serviceNames } from './harness.ts';
import { opened } from './opened.ts';

/**
 * Every RPC of every service × every kind of caller, over the generated definitions and over those that grpc-js's
 * proto-loader makes of the proto sources.
 *
 * What counts is who gets past the door. So the requests are empty: who is let in is told what is wrong with his request,
 * or gets an answer; nobody else may learn even that.
 */

/** In the order of the proto. */
const everybody = ['auth', 'conversation', 'message', 'file', 'router', 'connectors', 'tools', 'assistant', 'events'];

/** The packages whose services a folder has: those that the gateway knows, and what services ask each other alone. */
function servedBy(folder: string): string[] {
  return folder === 'auth' ? [...packagesOf(folder), 'identity'] : packagesOf(folder);
}

/**
 * Who may call what: written down apart from the protos, so that no change there opens an RPC unnoticed. A list names the
 * services that may call a SERVICE RPC.
 */
const expected: Record<string, Access | readonly string[]> = {
  '/chat4all.auth.v1.AuthService/IssueToken': 'PUBLIC',
  '/chat4all.auth.v1.AuthService/GetCurrentUser': 'USER',
  '/chat4all.auth.v1.AuthService/ListUsers': 'USER',
  '/chat4all.auth.v1.AuthService/LookupUsers': ['conversation'],
  '/chat4all.account.v1.AccountService/Register': 'PUBLIC',
  '/chat4all.account.v1.AccountService/Login': 'PUBLIC',
  '/chat4all.account.v1.AccountService/RefreshTokens': 'PUBLIC',
  '/chat4all.account.v1.AccountService/Logout': 'USER',
  '/chat4all.account.v1.AccountService/RequestPasswordReset': 'PUBLIC',
  '/chat4all.account.v1.AccountService/ResetPassword': 'PUBLIC',
  '/chat4all.account.v1.AccountService/GetAccount': 'USER',
  '/chat4all.account.v1.AccountService/UpdateAccount': 'USER',
  '/chat4all.account.v1.AccountService/ListApiKeys': 'USER',
  '/chat4all.account.v1.AccountService/CreateApiKey': 'USER',
  '/chat4all.account.v1.AccountService/RevokeApiKey': 'USER',
  '/chat4all.account.v1.UserAdminService/ListAccounts': 'ADMIN',
  '/chat4all.account.v1.UserAdminService/UpdateUser': 'ADMIN',
  '/chat4all.account.v1.UserAdminService/ListAuditEvents': 'ADMIN',
  '/chat4all.account.v1.AccountRecordService/CountUsers': ['tools'],
  '/chat4all.account.v1.AccountRecordService/RecordChanges': ['tools'],
  '/chat4all.identity.v1.IdentityService/ExchangeApiKey': everybody,
  '/chat4all.identity.v1.IdentityService/WatchStandings': everybody,
  '/chat4all.conversation.v1.ConversationService/CreateConversation': 'USER',
  '/chat4all.conversation.v1.ConversationService/ListConversations': 'USER',
  '/chat4all.conversation.v1.ConversationService/GetConversation': 'USER',
  '/chat4all.conversation.v1.ConversationService/AddMember': 'USER',
  '/chat4all.conversation.v1.ConversationService/LeaveConversation': 'USER',
  '/chat4all.conversation.v1.ConversationService/GetMembership': ['message'],
  '/chat4all.conversation.v1.ConversationService/GetMemberships': ['message'],
  '/chat4all.conversation.v1.ConversationService/GetConversations': ['events'],
  '/chat4all.conversation.v1.ConversationService/FilterMemberships': ['file'],
  '/chat4all.events.v1.EventsService/StreamEvents': 'USER',
  '/chat4all.events.v1.EventsService/StreamEventsByTicket': 'PUBLIC',
  '/chat4all.events.v1.EventsService/CreateTicket': 'USER',
  '/chat4all.events.v1.EventsService/ListEvents': 'USER',
  '/chat4all.events.v1.EventsService/SendTyping': 'USER',
  '/chat4all.events.v1.WebhooksService/CreateWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/ListWebhooks': 'USER',
  '/chat4all.events.v1.WebhooksService/GetWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/UpdateWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/DeleteWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/RotateWebhookSecret': 'USER',
  '/chat4all.events.v1.WebhooksService/PingWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/PauseWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/ResumeWebhook': 'USER',
  '/chat4all.events.v1.WebhooksService/ListWebhookAttempts': 'USER',
  '/chat4all.events.v1.WebhooksService/ReplayWebhook': 'USER',
  '/chat4all.file.v1.FileService/InitiateUpload': 'USER',
  '/chat4all.file.v1.FileService/UploadChunk': 'USER',
  '/chat4all.file.v1.FileService/UploadSignedChunk': 'PUBLIC',
  '/chat4all.file.v1.FileService/GetChunkUploadUrl': 'USER',
  '/chat4all.file.v1.FileService/CompleteUpload': 'USER',
  '/chat4all.file.v1.FileService/GetFile': 'USER',
  '/chat4all.file.v1.FileService/DownloadFile': 'USER',
  '/chat4all.file.v1.FileService/DeleteFile': 'USER',
  '/chat4all.file.v1.FileService/ShareFile': ['message'],
  '/chat4all.file.v1.FileService/VerifyFile': ['router'],
  '/chat4all.message.v1.MessageService/SendMessage': 'USER',
  '/chat4all.message.v1.MessageService/ListMessages': 'USER',
  '/chat4all.message.v1.MessageService/MarkRead': 'USER',
  '/chat4all.message.v1.MessageService/GetReadPositions': 'USER',
  '/chat4all.message.v1.MessageService/GetMessage': 'USER',
  '/chat4all.message.v1.OperationsService/ListDeadLetters': 'ADMIN',
  '/chat4all.message.v1.OperationsService/GetDeadLetter': 'ADMIN',
  '/chat4all.message.v1.OperationsService/ReplayDeadLetters': 'ADMIN',
  '/chat4all.message.v1.OperationsService/GetAudit': 'ADMIN',
  '/chat4all.router.v1.RouterService/GetRoute': 'ADMIN',
  '/chat4all.connectors.v1.ConnectorsService/ListChannels': ['message'],
  '/chat4all.connectors.v1.ConnectorsService/ListAttempts': 'ADMIN',
  '/chat4all.connectors.v1.SimulationService/GetProfile': 'ADMIN',
  '/chat4all.connectors.v1.SimulationService/SetProfile': 'ADMIN',
  '/chat4all.connectors.v1.SimulationService/ResetProfile': 'ADMIN',
  '/chat4all.connectors.v1.SimulationService/ListEffects': 'ADMIN',
  '/chat4all.tools.v1.ToolService/ListTools': 'USER',
  '/chat4all.tools.v1.ToolService/GetTool': 'USER',
  '/chat4all.tools.v1.ToolService/InvokeTool': 'USER',
  '/chat4all.tools.v1.MeteringService/ReserveTokens': ['assistant'],
  '/chat4all.tools.v1.MeteringService/SettleTokens': ['assistant'],
  '/chat4all.tools.v1.UsageService/ListUsage': 'USER',
  '/chat4all.tools.v1.UsageService/GetUsageSummary': 'USER',
  '/chat4all.tools.v1.SubscriptionService/ListPlans': 'USER',
  '/chat4all.tools.v1.SubscriptionService/ListSubscriptions': 'USER',
  '/chat4all.tools.v1.SubscriptionService/GetSubscription': 'USER',
  '/chat4all.tools.v1.SubscriptionService/Subscribe': 'USER',
  '/chat4all.tools.v1.SubscriptionService/CancelSubscription': 'USER',
  '/chat4all.tools.v1.ToolAdminService/CreateTool': 'ADMIN',
  '/chat4all.tools.v1.ToolAdminService/ListAllTools': 'ADMIN',
  '/chat4all.tools.v1.ToolAdminService/UpdateTool': 'ADMIN',
  '/chat4all.tools.v1.ToolAdminService/DeleteTool': 'ADMIN',
  '/chat4all.tools.v1.ToolAdminService/GetUsageStats': 'ADMIN',
  '/chat4all.assistant.v1.AssistantService/Chat': 'USER',
  '/chat4all.assistant.v1.AssistantService/ListConversations': 'USER',
  '/chat4all.assistant.v1.AssistantService/GetHistory': 'USER',
  '/chat4all.assistant.v1.AssistantService/UpdateConversation': 'USER',
  '/chat4all.assistant.v1.AssistantService/DeleteConversation': 'USER',
  '/chat4all.assistant.v1.AssistantService/StreamAnswer': 'USER',
  '/chat4all.assistant.v1.AssistantService/StopAnswer': 'USER',
  '/chat4all.assistant.v1.AssistantService/RegenerateAnswer': 'USER',
  '/chat4all.assistant.v1.AssistantService/DecideApproval': 'USER',
  '/chat4all.assistant.v1.TaskService/ListTasks': 'USER',
  '/chat4all.assistant.v1.TaskService/CreateTask': 'USER',
  '/chat4all.assistant.v1.TaskService/GetTask': 'USER',
  '/chat4all.assistant.v1.TaskService/UpdateTask': 'USER',
  '/chat4all.assistant.v1.TaskService/DeleteTask': 'USER',
  '/chat4all.assistant.v1.TaskService/ToggleTask': 'USER',
  '/chat4all.assistant.v1.McpService/ServeTasks': 'USER',
  '/chat4all.assistant.v1.McpService/ServeHub': 'USER',
  '/chat4all.assistant.v1.CompletionService/CreateCompletion': 'USER',
  '/chat4all.assistant.v1.CompletionService/ListModels': 'USER',
};

/** What a caller brings, and with which reason each access rule turns him away; `undefined` if it lets him in. */
interface CallerKind {
  name: string;
  token?: (service: string) => Promise<string | undefined>;
  apiKey?: () => Promise<string>;
  refusedBy: Record<Access, string | undefined>;
}

const missing = 'UNAUTHENTICATED TOKEN_MISSING';
const invalid = 'UNAUTHENTICATED TOKEN_INVALID';
const expired = 'UNAUTHENTICATED TOKEN_EXPIRED';
const denied = 'PERMISSION_DENIED ACCESS_DENIED';
/** Refused alike by every rule that asks who calls. */
const alike = (reason: string) => ({ PUBLIC: undefined, USER: reason, ADMIN: reason, SERVICE: reason });
/** The access rule of an RPC by what is written down, and the services that it names. */
function expectedOf(rpc: string): { access: Access | undefined; callers: readonly string[] } {
  const rule = expected[rpc];
  return typeof rule === 'object' ? { access: 'SERVICE', callers: rule } : { access: rule, callers: [] };
}
const forUsers = { PUBLIC: undefined, USER: undefined, ADMIN: denied, SERVICE: denied };

const hub = opened(openHarness, (hub) => hub.stop());
/** The one first that all others ask. */
const inStartOrder = ['auth', ...serviceNames.filter((name) => name !== 'auth')];
const started = new Map(
  inStartOrder.map((name) => [name, opened(() => hub.startService(name, { SEED_USERS: '1', EVENT_STREAM_AGE: '1s' }))]),
);

const user = { userId: uuid(), username: 'somebody' };
/** Signs like auth, with a key that nobody trusts. */
const stranger = opened(async () => {
  const { privateKeys, trusted } = await generateKeys(['auth']);
  return openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys.auth, TRUSTED_KEYS: trusted }));
});
/** Of somebody who is in the database: others have none. */
const apiKey = opened(async () => {
  const auth = hub.client(AuthServiceService, started.get('auth')!.address);
  const { token } = await auth.issueToken({ username: 'user1', password: 'password123' });
  const accounts = hub.client(AccountServiceService, started.get('auth')!.address, { token });
  return accounts.createApiKey({ name: 'of the test', expiresAt: undefined });
});
const claims = { ...user, numId: 1n, admin: true, sessionId: uuid(), expiresAt: new Date(Date.now() + 3_600_000) };
const someOther = (service: string) => (service === 'auth' ? 'message' : 'auth');

const callers: CallerKind[] = [
  { name: 'no token', refusedBy: alike(missing) },
  {
    name: 'an API key',
    apiKey: async () => apiKey.key,
    refusedBy: { PUBLIC: undefined, USER: undefined, ADMIN: missing, SERVICE: missing },
  },
  {
    name: 'an API key that nobody has',
    apiKey: async () => `c4a_${'x'.repeat(43)}`,
    refusedBy: { PUBLIC: undefined, USER: 'UNAUTHENTICATED API_KEY_INVALID', ADMIN: missing, SERVICE: missing },
  },
  { name: 'a token that is none', token: async () => 'nonsense', refusedBy: alike(invalid) },
  { name: 'a token signed by a stranger', token: () => stranger.userToken(claims), refusedBy: alike(invalid) },
  {
    name: "an administrator's token signed by another service than auth",
    token: () => hub.identities.message!.userToken(claims),
    refusedBy: alike(invalid),
  },
  {
    name: 'an expired user token',
    token: () => hub.userToken(user, new Date(Date.now() - 5_000)),
    refusedBy: alike(expired),
  },
  { name: 'a user token', token: () => hub.userToken(user), refusedBy: forUsers },
  {
    name: 'an administrator token',
    token: () => hub.userToken({ ...user, admin: true }),
    refusedBy: { ...forUsers, ADMIN: undefined },
  },
];

/** The callers, and every service as one, for an RPC that lets these services in. */
function callersOf(services: readonly string[]): CallerKind[] {
  const asServices = [...serviceNames, 'gateway'].flatMap((name): CallerKind[] => [
    {
      name: `a token of the ${name} service`,
      token: (service) => hub.serviceToken(name, service),
      refusedBy: {
        PUBLIC: undefined,
        USER: denied,
        ADMIN: denied,
        SERVICE: services.includes(name) ? undefined : denied,
      },
    },
    {
      name: `a token of the ${name} service for another one`,
      token: (service) => hub.serviceToken(name, someOther(service)),
      refusedBy: alike(invalid),
    },
  ]);
  return [...callers, ...asServices];
}

/** The RPCs of a service folder, with their access rule, by the descriptor set. */
function rpcsOf(folder: string) {
  return [...registry]
    .filter((type) => type.kind === 'service')
    .filter((type) => servedBy(folder).some((name) => type.typeName.startsWith(`chat4all.${name}.`)))
    .flatMap((service) => service.methods)
    .map((rpc) => ({
      path: `/${rpc.parent.typeName}/${rpc.name}`,
      access: accessOf(rpc),
      callers: [...namedCallers(rpc)],
    }));
}

/** Calls an RPC with an empty request. @returns the error that it ends with, if it does */
type EmptyCall = (rpc: string, metadata: Record<string, string>) => Promise<HubError | undefined>;

/** What a caller sends to a service. */
async function metadataOf({ token, apiKey }: CallerKind, service: string): Promise<Record<string, string>> {
  return {
    ...(token === undefined ? {} : { authorization: `Bearer ${await token(service)}` }),
    ...(apiKey === undefined ? {} : { 'x-api-key': await apiKey() }),
  };
}

/** Of all services, as ts-proto generated them, by path. To call a streaming RPC with one message is the same on the wire. */
async function generatedDefinitions(): Promise<Map<string, UnaryMethod<unknown, unknown>>> {
  const definitions = new Map<string, UnaryMethod<unknown, unknown>>();
  const files = serviceNames
    .flatMap(servedBy)
    .flatMap((folder) =>
      readdirSync(path.join(root, 'gen/chat4all', folder, 'v1')).map((file) => `#gen/chat4all/${folder}/v1/${file}`),
    );
  for (const file of files) {
    const module = (await import(file)) as Record<string, unknown>;
    for (const [name, exported] of Object.entries(module)) {
      if (!name.endsWith('ServiceService')) continue;
      for (const rpc of Object.values(exported as Record<string, UnaryMethod<unknown, unknown>>)) {
        definitions.set(rpc.path, rpc);
      }
    }
  }
  return definitions;
}

const root = path.resolve(import.meta.dirname, '..');
const generated = opened(generatedDefinitions);

interface Streaming {
  rpc: (request: unknown) => AsyncIterable<unknown>;
}

function generatedCall(address: string): EmptyCall {
  return async (rpc, metadata) => {
    const definition = generated.get(rpc);
    if (definition === undefined) throw new Error(`There is no generated definition of ${rpc}`);
    // A decoded nothing is the empty request, with each of its fields there.
    const empty = definition.requestDeserialize(Buffer.alloc(0));
    if (isStanding(method(rpc)) && method(rpc).methodKind === 'server_streaming') {
      // It goes on for long: its first message is an answer.
      const { rpc: stream } = hub.streams({ rpc: definition as never }, address, { metadata }) as unknown as Streaming;
      try {
        for await (const _ of stream(empty)) break;
        return undefined;
      } catch (error) {
        return error as HubError;
      }
    }
    const client = hub.client({ rpc: definition }, address, { metadata });
    return client.rpc(empty).then(
      () => undefined,
      (error: HubError) => error,
    );
  };
}

const dynamic = loadPackageDefinition(
  loadSync(
    serviceNames
      .flatMap(servedBy)
      .flatMap((folder) =>
        readdirSync(path.join(root, 'proto/chat4all', folder, 'v1')).map((file) => `chat4all/${folder}/v1/${file}`),
      ),
    { includeDirs: [path.join(root, 'proto'), path.join(root, 'third_party')], keepCase: true, longs: String },
  ),
);

function dynamicCall(address: string): EmptyCall {
  return async (rpc, metadata) => {
    const [, service = '', name = ''] = rpc.split('/');
    type Found = { [name: string]: Found } & (new (
      address: string,
      credentials: unknown,
    ) => Client & Record<string, Function>);
    const Service = service.split('.').reduce<Found>((found, part) => found[part] as Found, dynamic as never);
    const client = new Service(address, credentials.createInsecure());
    const sent = new Metadata();
    for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
    try {
      return await new Promise((resolve) => {
        const settle = (error: ServiceError | null) => resolve(error === null ? undefined : fromServiceError(error));
        const given = [sent, { deadline: Date.now() + 30_000 }];
        const method = client[name] as Function & { requestStream: boolean; responseStream: boolean };
        if (method.requestStream) {
          (method.call(client, ...given, settle) as ClientWritableStream<object>).end({});
        } else if (method.responseStream) {
          (method.call(client, {}, ...given) as ClientReadableStream<object>)
            .on('error', settle)
            .on('data', () => settle(null))
            .on('status', () => settle(null))
            .resume();
        } else {
          method.call(client, {}, ...given, settle);
        }
      });
    } finally {
      client.close();
    }
  };
}

/** What an RPC may end with once the caller is in: an answer, or what is said of the empty request. */
function isLetIn(error: HubError | undefined, access: Access): boolean {
  if (error === undefined) return true;
  // Of a public RPC that logs in, the empty password is what is wrong, never the lack of a token.
  if (error.kind === 'INVALID_ARGUMENT') return error.fields.length > 0;
  // Where a path names its user, the empty one is nobody's.
  if (error.reason === 'NOT_YOUR_PATH') return access === 'USER';
  // Whoever is asked about is the caller, who never had one.
  if (error.reason === 'SUBSCRIPTION_NOT_FOUND') return access === 'USER';
  // A URL that is a permission is incomplete.
  if (access === 'PUBLIC' && error.reason === 'SIGNATURE_INVALID') return true;
  // The caller's identity was believed, but there is no such user in the database.
  return access !== 'PUBLIC' && error.reason === 'TOKEN_INVALID' && /user no longer exists/.test(error.message);
}

async function checkRpc(t: ExecutionContext, folder: string, rpc: string, call: EmptyCall): Promise<void> {
  const { access, callers: services } = expectedOf(rpc);
  if (access === undefined) return t.fail(`nobody has written down who may call ${rpc}`);
  for (const caller of callersOf(services)) {
    const { name, refusedBy, apiKey } = caller;
    const error = await call(rpc, await metadataOf(caller, folder));
    const got = error === undefined ? 'an answer' : `${error.kind} ${error.reason}`;
    const isTokenMissing: boolean = apiKey !== undefined && access !== 'PUBLIC' && isBearerOnly(method(rpc));
    const refusal: string | undefined = isTokenMissing ? missing : refusedBy[access];
    if (refusal === undefined) t.true(isLetIn(error, access), `with ${name}: ${got}`);
    else t.is(got, refusal, `with ${name}`);
  }
}

for (const folder of serviceNames) {
  for (const { path: rpc, access, callers: services } of rpcsOf(folder)) {
    test(`${rpc}: its proto names those who may call it`, (t) => {
      t.deepEqual({ access, callers: services }, expectedOf(rpc));
      for (const name of services) t.true(serviceNames.includes(name), `there is a ${name} service`);
    });
    for (const [kind, call] of [
      ['generated', generatedCall],
      ['dynamic', dynamicCall],
    ] as const) {
      test(`${rpc}: lets in whom its access rule names and nobody else (${kind} client)`, (t) =>
        checkRpc(t, folder, rpc, call(started.get(folder)!.address)));
    }
  }
}

test('the header must be `Bearer <token>`, whatever the case of the scheme', async (t) => {
  const { address } = started.get('auth')!;
  const rpc = generated.get('/chat4all.auth.v1.AuthService/ListUsers')!;
  const token = await hub.userToken(user);
  const withHeader = (authorization: string) =>
    hub
      .client({ rpc }, address, { metadata: { authorization } })
      .rpc(rpc.requestDeserialize(Buffer.alloc(0)))
      .then(
        () => 'an answer',
        (error: HubError) => `${error.kind} ${error.reason}`,
      );
  t.is(await withHeader(`bearer ${token}`), 'an answer');
  t.is(await withHeader(`BEARER  ${token}`), 'an answer');
  t.is(await withHeader(token), invalid);
  t.is(await withHeader(`Basic ${token}`), invalid);
  t.is(await withHeader('Bearer'), invalid);
});

test('what is read over REST may be read again: its proto says so', (t) => {
  const http = registry.getExtension('google.api.http')!;
  const gets = [...registry]
    .flatMap((type) => (type.kind === 'service' && type.typeName.startsWith('chat4all.') ? type.methods : []))
    .filter((rpc) => (getOption(rpc, http) as unknown as { pattern: { case?: string } }).pattern.case === 'get');
  t.true(gets.length > 5);
  const others = gets.filter(({ idempotency }) => idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
  // A ticket is good for one stream.
  t.deepEqual(
    others.map(({ name }) => name),
    ['StreamEventsByTicket'],
  );
});

test('every service of the descriptor set has a folder, and every folder a service with RPCs', (t) => {
  const described = [...registry]
    .filter((type) => type.kind === 'service')
    .map((type) => type.typeName)
    .filter((name) => name.startsWith('chat4all.'))
    .map((name) => name.split('.')[1] ?? '');
  t.deepEqual([...new Set(described)].toSorted(), serviceNames.flatMap(servedBy).toSorted());
});
