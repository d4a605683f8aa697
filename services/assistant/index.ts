import { AssistantServiceService, TaskServiceService } from '#gen/chat4all/assistant/v1/assistant.ts';
import { CompletionServiceService } from '#gen/chat4all/assistant/v1/protocols.ts';
import { duration, integer, laptopSettings, type Config } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { service, type ServedService } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { billingSettings, openBilling } from './billing.ts';
import { openCompletions } from './completions/completions.ts';
import { completionHandlers } from './completions/handlers.ts';
import { openConversations } from './conversations/conversations-store.ts';
import { assistantChecks, assistantFinds, assistantHandlers } from './handlers.ts';
import { mcpSettings, openMcp } from './mcp/open.ts';
import { openProvider, providerSettings } from './provider/open.ts';
import { database } from './database.ts';
import { openStreams } from './streams.ts';
import { taskChecks, taskFinds, taskHandlers } from './tasks/task-handlers.ts';
import { openTasks } from './tasks/tasks-store.ts';
import { observed } from './turns/traces.ts';
import { openTurns } from './turns/turns.ts';
import { openTurnsStore } from './turns/turns-store.ts';
import { lease } from './turns/work.ts';

const second = 1_000;

export const settings = {
  ...serviceSettings,
  ...laptopSettings,
  ...providerSettings,
  ...mcpSettings,
  ...billingSettings,
  ASSISTANT_MAX_STEPS: integer({ min: 1, max: 100 })
    .default(8)
    .describe('how often the model is called for one answer at most'),
  ASSISTANT_TURN_LIMIT: duration({ min: second, max: 170 * second })
    .default(120 * second)
    .describe('how long one answer may take, without the time that it waits for approvals'),
  ASSISTANT_CONTEXT_TOKENS: integer({ min: 1_000, max: 10_000_000 })
    .default(32_000)
    .describe('how many tokens of a conversation the model is shown at most: the newest of whole turns'),
  ASSISTANT_RATE_LIMIT: integer({ min: 1, max: 1_000_000 })
    .default(300)
    .describe('how many answers one user may ask for within a minute'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'assistant', config, log, database }, async ({ db, identities, own, onStop, serve }) => {
    const provider = own(await openProvider(config));
    const billing = own(openBilling({ config, identities, log, limit: config.ASSISTANT_TURN_LIMIT }));

    const tasks = openTasks(db);
    const mcp = own(openMcp({ config, db, tasks, identities, log }));
    const completions = openCompletions({
      provider,
      toolbox: mcp.toolbox,
      billing,
      maxSteps: config.ASSISTANT_MAX_STEPS,
      limit: config.ASSISTANT_TURN_LIMIT,
      observe: (observation) => observed(observation, log),
    });
    const conversations = openConversations(db);
    const turns = own(
      openTurns({
        store: openTurnsStore(db, { lease, rateLimit: config.ASSISTANT_RATE_LIMIT }),
        conversations,
        provider,
        toolbox: mcp.toolbox,
        billing,
        log,
        maxSteps: config.ASSISTANT_MAX_STEPS,
        turnLimit: config.ASSISTANT_TURN_LIMIT,
        contextTokens: config.ASSISTANT_CONTEXT_TOKENS,
      }),
    );

    const streams = openStreams();
    const services: ServedService[] = [
      service(
        AssistantServiceService,
        assistantHandlers({ conversations, turns, streams }),
        assistantChecks,
        assistantFinds(conversations),
      ),
      service(TaskServiceService, taskHandlers(tasks), taskChecks, taskFinds(tasks)),
      mcp.service,
      service(CompletionServiceService, completionHandlers(completions, streams)),
    ];
    const server = await serve(services, {
      optionalDependencies: Object.fromEntries(
        mcp.toolbox.others.map((name) => [
          `mcp.${name}`,
          () => mcp.toolbox.problems().every(({ server: each }) => each !== name),
        ]),
      ),
    });
    onStop(() => mcp.retire());

    return server;
  });
}
