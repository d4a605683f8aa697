import { ConfigError, duration, integer, secret, text, type Config } from '#lib/config.ts';
import { openOpenAi } from './openai.ts';
import type { Provider } from './provider.ts';
import { openScripted } from './scripted.ts';

const second = 1_000;

/** Settings for the model that answers. */
export const providerSettings = {
  ASSISTANT_BASE_URL: text()
    .refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http or https URL')
    .optional()
    .describe(
      'where the model answers: an OpenAI-compatible API, with its version (http://localhost:11434/v1); not set, a scripted model that follows fixed rules answers',
    ),
  ASSISTANT_API_KEY: secret().optional().describe('the key for ASSISTANT_BASE_URL, if it wants one. Secret'),
  ASSISTANT_MODEL: text().optional().describe('the name of the model there; needed with ASSISTANT_BASE_URL'),
  ASSISTANT_TIMEOUT: duration({ min: 100, max: 300 * second })
    .default(60 * second)
    .describe('how long the model may say nothing before its call is given up'),
  ASSISTANT_MAX_OUTPUT_TOKENS: integer({ min: 1, max: 1_000_000 })
    .optional()
    .describe('tokens that the model may write in one call; not set, what its provider allows'),
};

/** The model that the settings name. @throws ConfigError */
export async function openProvider(config: Config<typeof providerSettings>): Promise<Provider> {
  const { ASSISTANT_BASE_URL: baseUrl, ASSISTANT_MODEL: model } = config;
  if (baseUrl === undefined) return openScripted();
  if (model === undefined) throw new ConfigError(['ASSISTANT_MODEL is required with ASSISTANT_BASE_URL']);
  return openOpenAi({
    baseUrl,
    model,
    apiKey: config.ASSISTANT_API_KEY,
    timeout: config.ASSISTANT_TIMEOUT,
    maxOutputTokens: config.ASSISTANT_MAX_OUTPUT_TOKENS,
  });
}
