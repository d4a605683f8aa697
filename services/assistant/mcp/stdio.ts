import { Client, SdkHttpError, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { McpServer, ProtocolError, ProtocolErrorCode } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { ConfigError, loadConfig, text } from '#lib/config.ts';
import { isApiKey } from '#lib/api-keys.ts';

/**
 * `npm run --silent mcp -- tasks|hub`: an MCP server of the hub over standard input and output, for hosts that start their servers
 * as programs. It hands on to the server at CHAT4ALL_URL what the host asks for. All that it says for people goes to standard error.
 */

const settings = {
  CHAT4ALL_URL: text()
    .refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http or https URL')
    .default('http://localhost:8000'),
  CHAT4ALL_API_KEY: text(),
};
const names = ['tasks', 'hub'];
const timeout = 60_000;

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}

const [name = ''] = process.argv.slice(2);
if (process.argv.length !== 3 || !names.includes(name)) fail('Usage: npm run --silent mcp -- tasks|hub');
const config = read();
const endpoint = new URL(`/mcp/${name}`, config.CHAT4ALL_URL);

function read() {
  try {
    return loadConfig(settings);
  } catch (error) {
    if (error instanceof ConfigError) fail(`${error.message}\nCHAT4ALL_API_KEY is an API key of yours, or a token.`);
    throw error;
  }
}

let connected: Promise<Client> | undefined;

/** The connection to the hub, made once it is needed, and anew after it has failed. */
function hub(): Promise<Client> {
  connected ??= connect().catch((error: unknown) => {
    connected = undefined;
    throw error;
  });
  return connected;
}

async function connect(): Promise<Client> {
  const key = config.CHAT4ALL_API_KEY;
  const headers: Record<string, string> = isApiKey(key) ? { 'x-api-key': key } : { authorization: `Bearer ${key}` };
  // Each request stands alone, so a restart of the hub loses nothing.
  const client = new Client(
    { name: `chat4all-stdio-${name}`, version: '1.0.0' },
    { versionNegotiation: { mode: { pin: '2026-07-28' } } },
  );
  await client.connect(new StreamableHTTPClientTransport(endpoint, { requestInit: { headers } }), { timeout });
  return client;
}

/** Calls the hub; failures are reported to the host, and to people on standard error. */
async function asked<Answer>(ask: (client: Client) => Promise<Answer>): Promise<Answer> {
  try {
    return await ask(await hub());
  } catch (error) {
    if (error instanceof ProtocolError) throw error;
    const why = reasonOf(error);
    process.stderr.write(`${why}\n`);
    throw new ProtocolError(ProtocolErrorCode.InternalError, why);
  }
}

function reasonOf(error: unknown): string {
  const status = error instanceof SdkHttpError ? error.status : undefined;
  if (status === 401) return 'The hub does not take the API key: CHAT4ALL_API_KEY must be a valid one';
  if (status !== undefined) return `The hub at ${config.CHAT4ALL_URL} answers with the status ${status}`;
  return `The hub at ${config.CHAT4ALL_URL} can't be reached: ${error instanceof Error ? error.message : String(error)}`;
}

const served = serveStdio(
  () => {
    const server = new McpServer({ name: `chat4all-${name}`, version: '1.0.0' }, { capabilities: { tools: {} } });
    server.server.setRequestHandler('tools/list', () => asked((client) => client.listTools(undefined, { timeout })));
    server.server.setRequestHandler('tools/call', ({ params: { name: called, arguments: given = {} } }, { mcpReq }) =>
      asked((client) => client.callTool({ name: called, arguments: given }, { signal: mcpReq.signal, timeout })),
    );
    return server;
  },
  { onerror: (error) => process.stderr.write(`${error.message}\n`) },
);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void served.close().then(() => process.exit(0)));
}
