import { Client, StreamableHTTPClientTransport, type Tool as ListedTool } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { within } from '#lib/deadline.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
import { backoffMs } from '#lib/backoff.ts';
import { callTool, failure, ServerLost } from './calling.ts';
import { clientInfo } from './client-info.ts';
import type { ServerConfiguration } from './configuration.ts';
import type { Tool, ToolOutcome } from './toolbox.ts';

const limits = {
  /** Milliseconds for a connection and the list of tools. */
  connecting: 10_000,
  /** How long a turn waits for the first connection, in milliseconds. */
  patienceMs: 3_000,
  /** How often the tools are listed again, in milliseconds. */
  refresh: 60_000,
  tools: 128,
  /** Characters of a tool's description, and of the JSON of its parameters. */
  description: 4_096,
  schema: 32_768,
} as const;

/** The pauses between attempts to connect. */
const backoff = { firstMs: 500, maxMs: 30_000, jitter: 0 };

/** What providers take as the name of a function. */
const functionName = /^[A-Za-z0-9_-]{1,64}$/;

/** An external MCP server: connected as long as this process runs, and reconnected when it was unavailable. */
export class OtherServer {
  readonly name: string;
  readonly #configuration: ServerConfiguration;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #tried = Promise.withResolvers<void>();
  #connected: { client: Client; tools: readonly Tool[] } | undefined;
  #failure: string | undefined = 'It has not been reached yet';
  #failures = 0;
  #leftOut = '';

  constructor(configuration: ServerConfiguration, log: Logger) {
    this.name = configuration.name;
    this.#configuration = configuration;
    this.#log = log;
    this.#loop = repeat(`The MCP server ${this.name}`, log, () => this.#tend());
  }

  /** Why it can't be used now; undefined if it can. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Its tools; undefined while it can't be reached. Waits a little for the first connection. */
  async tools(signal: AbortSignal): Promise<readonly Tool[] | undefined> {
    if (this.#connected === undefined) {
      const gaveUp = Promise.withResolvers<void>();
      const timer = setTimeout(gaveUp.resolve, limits.patienceMs);
      signal.addEventListener('abort', gaveUp.resolve as () => void, { once: true });
      await Promise.race([this.#tried.promise, gaveUp.promise]);
      clearTimeout(timer);
    }
    return this.#connected?.tools;
  }

  async call(call: { name: string; arguments: unknown }, signal: AbortSignal): Promise<ToolOutcome> {
    const client = this.#connected?.client;
    if (client === undefined) return failure(`The server ${this.name} can't be reached at the moment`);
    try {
      return await callTool(client, { ...call, timeout: this.#configuration.timeout }, { signal, log: this.#log });
    } catch (error) {
      if (!(error instanceof ServerLost)) throw error;
      await this.#lose(client, error.message);
      return failure(`The server ${this.name} has failed; whether it has done anything is not known`);
    }
  }

  async stop(): Promise<void> {
    // Awaited, since a connection that is being made would be opened after the stop.
    await this.#loop.stop();
    const client = this.#connected?.client;
    this.#connected = undefined;
    await client?.close();
  }

  /** Connects, or asks for the tools once more. @returns milliseconds until the next time */
  async #tend(): Promise<number> {
    try {
      const client = this.#connected?.client ?? (await this.#connect());
      const { tools } = await client.listTools(undefined, { timeout: limits.connecting, cacheMode: 'refresh' });
      if (this.#failure !== undefined)
        this.#log.info(`The MCP server ${this.name} is there, with ${tools.length} tools`);
      this.#connected = { client, tools: this.#usable(tools) };
      this.#failure = undefined;
      this.#failures = 0;
      return limits.refresh;
    } catch (error) {
      if (this.#failures === 0) this.#log.warn({ err: error }, `The MCP server ${this.name} can't be used`);
      this.#failures += 1;
      await this.#lose(this.#connected?.client, error instanceof Error ? error.message : String(error));
      return backoffMs(backoff, this.#failures);
    } finally {
      this.#tried.resolve();
    }
  }

  async #connect(): Promise<Client> {
    const { url, headers, command, args, env } = this.#configuration;
    const client = new Client(clientInfo, { versionNegotiation: { mode: 'auto', probe: { timeoutMs: 3_000 } } });
    const transport =
      url === undefined
        ? new StdioClientTransport({ command: command!, args: args ?? [], env: env ?? {}, stderr: 'ignore' })
        : new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: headers ?? {} } });
    // eslint-disable-next-line unicorn/prefer-add-event-listener -- the SDK's clients have no other way
    client.onclose = () => {
      if (this.#connected?.client !== client) return;
      void this.#lose(client, 'The connection was closed');
      this.#loop.wake();
    };
    client.setNotificationHandler('notifications/tools/list_changed', () => this.#loop.wake());
    try {
      await within(limits.connecting, client.connect(transport), () => new Error('it does not answer'));
      return client;
    } catch (error) {
      await client.close();
      await transport.close();
      throw error;
    }
  }

  async #lose(client: Client | undefined, why: string): Promise<void> {
    this.#failure = why;
    if (this.#connected?.client === client) this.#connected = undefined;
    await client?.close();
  }

  #usable(listed: readonly ListedTool[]): Tool[] {
    const { tools: allowed, approve } = this.#configuration;
    const wanted = listed.filter(({ name }) => allowed === undefined || allowed.includes(name));
    const usable = wanted.filter(
      ({ name, inputSchema }) =>
        functionName.test(`${this.name}__${name}`) && JSON.stringify(inputSchema).length <= limits.schema,
    );
    const leftOut = wanted.filter((each) => !usable.slice(0, limits.tools).includes(each)).map(({ name }) => name);
    if (leftOut.join() !== this.#leftOut) {
      this.#leftOut = leftOut.join();
      if (leftOut.length > 0) {
        this.#log.warn(
          { tools: leftOut },
          `The MCP server ${this.name} has tools that are left out: their names, schemas or number exceed what models accept`,
        );
      }
    }
    return usable.slice(0, limits.tools).map(({ name, description = '', inputSchema, annotations = {} }) => {
      const { readOnlyHint = false, destructiveHint = true } = annotations;
      const byAnnotations = !readOnlyHint && destructiveHint;
      return {
        server: this.name,
        name,
        description: description.slice(0, limits.description).toWellFormed(),
        inputSchema,
        needsApproval:
          approve === undefined ? byAnnotations : approve === true || (approve !== false && approve.includes(name)),
        isReadOnly: readOnlyHint,
      };
    });
  }
}
