import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { RefusedError } from '../../client/client.ts';
import { eventually } from '../eventually.ts';
import { ConversationType } from '../../client/gen/chat4all/conversation/v1/conversation.pb.ts';
import type { SendMessageRequest } from '../../client/gen/chat4all/message/v1/message.pb.ts';
import { kafkaIsThere, s3IsThere, startMesh, type Mesh, type TestUser } from '../harness.ts';
import { openedTogether } from '../opened.ts';
import { openRest, type MessageDetails, type MessagePage, type Problem, type Rest } from '../rest.ts';

/** Somebody who uses the hub. */
export interface Person extends TestUser {
  rest: Rest;
}

/** A whole mesh on one of the engines, with people who have tokens. */
export interface FlowMesh extends Mesh {
  /** Stands before the titles of its tests. */
  bus: 'embedded' | 'kafka';
  /** user1, user2, … */
  people: readonly Person[];
  /** Calls without a token. */
  anonymous: Rest;
}

/** A mesh on each of these engines that is there, for the tests of a file. */
export function openedMeshes(
  buses: readonly FlowMesh['bus'][],
  options: { people?: number; env?: NodeJS.ProcessEnv } = {},
): FlowMesh[] {
  const there = buses.filter((bus) => bus !== 'kafka' || kafkaIsThere);
  return openedTogether(
    there.map((bus) => ({
      open: () => startFlowMesh(bus, options),
      close: (mesh: FlowMesh) => mesh.stop(),
      known: { bus },
    })),
  );
}

/** Starts a mesh on one engine, with its files in S3 beside Kafka where that is there, and else on disk. */
export async function startFlowMesh(
  bus: FlowMesh['bus'],
  { people = 5, env = {} }: { people?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<FlowMesh> {
  const files = bus === 'kafka' && s3IsThere ? 's3' : 'disk';
  // Half of the flows are so with the other client of gRPC.
  const GATEWAY_GRPC_CLIENT = bus === 'kafka' ? 'grpc-js' : 'own';
  const mesh = await startMesh({ bus, files, env: { SEED_USERS: String(people), GATEWAY_GRPC_CLIENT, ...env } });
  const usernames = Array.from({ length: people }, (_, index) => `user${index + 1}`);
  const auth = mesh.client(AuthServiceService, mesh.services.auth!.address, {
    token: await mesh.serviceToken('conversation', 'auth'),
  });
  const { users } = await auth.lookupUsers({ userIds: [], usernames });
  const found = new Map(users.map(({ username, userId }) => [username, userId]));
  const logOf = (requestId: string) =>
    [mesh.gateway, ...Object.values(mesh.services)]
      .flatMap((process) => process.lines.filter((line) => line.includes(`"${requestId}"`)))
      .join('');
  return {
    ...mesh,
    bus,
    anonymous: openRest(mesh.url, undefined, logOf),
    people: await Promise.all(
      usernames.map(async (username) => {
        const userId = found.get(username)!;
        return { userId, username, rest: openRest(mesh.url, await mesh.userToken({ userId, username }), logOf) };
      }),
    ),
  };
}

/** Opens a conversation of these people; the first of them does it. Two make it private, more a group. */
export async function openConversation(people: readonly Person[]): Promise<string> {
  const asked = {
    type: people.length === 2 ? ConversationType.CONVERSATION_TYPE_PRIVATE : ConversationType.CONVERSATION_TYPE_GROUP,
    members: people.map((person) => person.userId),
  };
  return (await people[0]!.rest.client.conversation.createConversation(asked)).conversation_id;
}

/** The body of a message: a text over WhatsApp with a new id. What is said in `changes` comes in place of that. */
export function messageOf(sender: Person, conversationId: string, changes: object = {}) {
  return {
    message_id: uuid(),
    conversation_id: conversationId,
    from: sender.userId,
    channels: ['whatsapp'],
    payload: { type: 'text', text: 'Oi' },
    ...changes,
  };
}

/** Sends a message and returns its id. */
export async function send(sender: Person, conversationId: string, changes: object = {}): Promise<string> {
  const message = messageOf(sender, conversationId, changes) as SendMessageRequest;
  await sender.rest.client.message.sendMessage(message);
  return message.message_id;
}

/** Sends a message, again and again while the hub says that it can't take it now, and returns its id. */
export async function sendPatiently(sender: Person, conversationId: string, changes: object = {}): Promise<string> {
  const json = messageOf(sender, conversationId, changes);
  for (;;) {
    const { status, body } = await sender.rest.call('POST', '/v1/messages', { json });
    if (status === 200) return json.message_id;
    if (status !== 503) throw new Error(`POST /v1/messages: ${status} ${JSON.stringify(body)}`);
    await sleep((body as Problem).retry_after! * 1_000);
  }
}

/** The message once it is delivered or failed. Whoever is told to come again later (503) does so. */
export async function ended(reader: Person, messageId: string, limit?: number): Promise<MessageDetails> {
  const read = () =>
    reader.rest.client.message.getMessage({ message_id: messageId }).catch((error: unknown) => {
      if (error instanceof RefusedError && error.status === 503) return undefined;
      throw error;
    });
  const hasEnded = (found: MessageDetails | undefined) => found?.status === 'delivered' || found?.status === 'failed';
  return (await eventually(`message ${messageId} has ended`, read, hasEnded, limit)) as MessageDetails;
}

/** Every message of a conversation, oldest first, read in pages. */
export async function everyMessage(reader: Person, conversationId: string): Promise<MessagePage['messages']> {
  const all: MessagePage['messages'] = [];
  for (;;) {
    const { messages, total } = await reader.rest.client.message.listMessages({
      conversation_id: conversationId,
      order: 'asc',
      limit: 100,
      offset: all.length,
    });
    all.push(...messages);
    if (messages.length === 0 || all.length >= total) return all;
  }
}

/** What the mock connectors say that they have delivered, line by line, by message. */
export function everyDeliveryLine(lines: readonly string[]): Map<string, string[]> {
  const told = lines
    .filter((line) => line.includes('INFO: Mensagem '))
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
  return Map.groupBy(told, (text) => text.split(' ')[2]!);
}

/** What the mock connectors of a mesh say that they have delivered of one message. */
export function deliveryLines(mesh: Mesh, messageId: string): string[] {
  return everyDeliveryLine(mesh.services.connectors!.lines).get(messageId) ?? [];
}

/** The line that a mock connector writes when it delivers. */
export function deliveryLine(messageId: string, recipientId: string, network: string): string {
  return `INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no ${network}`;
}

/** Makes a table refuse rows, in a way that no repetition mends, until what is returned is called. */
export async function breakTable(mesh: FlowMesh, table: string, condition: string): Promise<() => Promise<void>> {
  const name = `broken_${uuid().slice(0, 8)}`;
  const run = async (statement: string) => {
    const client = new pg.Client(mesh.adminDatabaseUrl);
    await client.connect();
    await client.query(statement);
    await client.end();
  };
  const [schema] = table.split('.');
  await run(`
    create function ${schema}.${name}() returns trigger language plpgsql as $$ begin raise 'broken on purpose'; end $$;
    create trigger ${name} before insert or update on ${table} for each row when (${condition})
      execute function ${schema}.${name}()`);
  return () => run(`drop trigger ${name} on ${table}; drop function ${schema}.${name}`);
}
