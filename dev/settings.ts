import { z } from 'zod';
import { integer, port, text } from '#lib/config.ts';
import { logSettings } from '#lib/log.ts';
import { metricsSettings } from '#lib/metrics.ts';

/** Settings of `npm start` itself. It hands its whole environment on to the processes that it starts. */
export const settings = {
  ...logSettings,
  ...metricsSettings,
  PORT: port().default(8000).describe('where the gateway listens'),
  GRPC_PORT_BASE: integer({ min: 1024, max: 65_000 })
    .default(50_051)
    .describe(
      'gRPC port of auth; conversation, message, file, router, connectors, tools, assistant and events have the ones after it. Not set, all are later ones where one of these is taken',
    ),
  REPLICAS: integer({ min: 1, max: 5 }).default(1).describe('how often each service runs; the gateway runs once'),
  PROCESSES: z
    .enum(['one', 'each'])
    .optional()
    .describe(
      'whether the gateway and the services share one process, or each has its own; not set, one, and each with REPLICAS above 1',
    ),
  DATA_DIR: text().default('.chat4all').describe('where npm start keeps its data'),
};
