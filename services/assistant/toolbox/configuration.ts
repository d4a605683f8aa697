import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { ConfigError, duration } from '#lib/config.ts';

/** An external MCP server that the assistant may use. */
export type ServerConfiguration = z.output<typeof serverSchema> & { name: string };

const second = 1_000;

const serverSchema = z
  .strictObject({
    command: z.string().min(1).optional(),
    args: z.array(z.string()).optional(),
    env: z.record(z.string(), z.string()).optional(),
    url: z
      .string()
      .refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http or https URL')
      .optional(),
    headers: z.record(z.string(), z.string()).optional(),
    /** Milliseconds that a call may take. */
    timeout: duration({ min: 100, max: 600 * second })
      .optional()
      .transform((milliseconds) => milliseconds ?? 30 * second),
    /** The only tools that are used, by their names at the server; all of them if it isn't there. */
    tools: z.array(z.string()).optional(),
    /** Whether the user is asked before a call, where a request says so; by the tool's annotations if it isn't there. */
    approve: z.union([z.boolean(), z.array(z.string())]).optional(),
  })
  .superRefine(({ command, args, env, url, headers }, context) => {
    const problem = (message: string) => context.addIssue({ code: 'custom', message });
    if ((command === undefined) === (url === undefined)) problem('needs either a command or a url');
    if (command === undefined && (args !== undefined || env !== undefined))
      problem('has args or env without a command');
    if (url === undefined && headers !== undefined) problem('has headers without a url');
  });

/** Names that tools of models are made of, with room for the name of the tool. Two underscores part the two. */
const namePattern = /^(?!.*__)[A-Za-z0-9-](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9-])?$/;
const maxServers = 32;

const fileSchema = z.strictObject({
  mcpServers: z
    .record(
      z
        .string()
        .regex(
          namePattern,
          'has a name that is not 1 to 32 letters, digits, hyphens and single underscores between them',
        ),
      serverSchema,
    )
    .refine((servers) => Object.keys(servers).length <= maxServers, `names more than ${maxServers} servers`),
});

/**
 * The servers that a file names (`ASSISTANT_MCP_FILE`).
 *
 * @param reservedNames names of servers that are there already
 * @throws ConfigError naming all that is wrong with it, without values
 */
export function readServers(file: string | undefined, reservedNames: readonly string[]): ServerConfiguration[] {
  if (file === undefined) return [];
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const why =
      error instanceof SyntaxError ? 'is no JSON' : `can't be read (${(error as NodeJS.ErrnoException).code})`;
    throw new ConfigError([`ASSISTANT_MCP_FILE: ${file} ${why}`]);
  }
  const result = fileSchema.safeParse(json);
  const problems = (result.error?.issues ?? []).map(
    ({ path, message }) => `ASSISTANT_MCP_FILE: ${path.length === 0 ? 'the file' : path.join('.')}: ${message}`,
  );
  const names = Object.keys(result.data?.mcpServers ?? {});
  for (const name of names.filter((each) => reservedNames.includes(each))) {
    problems.push(`ASSISTANT_MCP_FILE: mcpServers.${name}: is the name of a server of the hub`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.entries(result.data!.mcpServers).map(([name, server]) => ({ name, ...server }));
}
