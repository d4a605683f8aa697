import { setTimeout as sleep } from 'node:timers/promises';
import {
  completable,
  fromJsonSchema,
  McpServer,
  ResourceTemplate,
  type CallToolResult,
  type ElicitRequestFormParams,
} from '@modelcontextprotocol/server';
import { z } from 'zod';

/** Of one pixel. */
const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
/** Without a sample. */
const wav = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';

const elicitations: Record<string, ElicitRequestFormParams['requestedSchema']> = {
  test_elicitation_sep1034_defaults: {
    type: 'object',
    properties: {
      name: { type: 'string', default: 'John Doe' },
      age: { type: 'integer', default: 30 },
      score: { type: 'number', default: 95.5 },
      status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
      verified: { type: 'boolean', default: true },
    },
  },
  test_elicitation_sep1330_enums: {
    type: 'object',
    properties: {
      untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
      titledSingle: {
        type: 'string',
        oneOf: [
          { const: 'value1', title: 'First Option' },
          { const: 'value2', title: 'Second Option' },
          { const: 'value3', title: 'Third Option' },
        ],
      },
      legacyEnum: {
        type: 'string',
        enum: ['opt1', 'opt2', 'opt3'],
        enumNames: ['Option One', 'Option Two', 'Option Three'],
      },
      untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
      titledMulti: {
        type: 'array',
        items: {
          anyOf: [
            { const: 'value1', title: 'First Choice' },
            { const: 'value2', title: 'Second Choice' },
            { const: 'value3', title: 'Third Choice' },
          ],
        },
      },
    },
  },
};

/** A server with all that the scenarios of `@modelcontextprotocol/conformance` 0.1.16 ask for, under the names that they use. */
export function conformanceServer(): McpServer {
  const served = new McpServer(
    { name: 'conformance', version: '1.0.0' },
    { capabilities: { logging: {}, resources: { subscribe: true }, completions: {} } },
  );
  addTools(served);
  addResources(served);
  addPrompts(served);
  return served;
}

function text(said: string): CallToolResult {
  return { content: [{ type: 'text', text: said }] };
}

function addTools(served: McpServer): void {
  const plain = (name: string, content: CallToolResult['content']) =>
    served.registerTool(name, { description: `Returns ${name}` }, () => ({ content }));
  plain('test_simple_text', [{ type: 'text', text: 'This is a simple text response for testing.' }]);
  plain('test_image_content', [{ type: 'image', data: png, mimeType: 'image/png' }]);
  plain('test_audio_content', [{ type: 'audio', data: wav, mimeType: 'audio/wav' }]);
  plain('test_embedded_resource', [
    {
      type: 'resource',
      resource: {
        uri: 'test://embedded-resource',
        mimeType: 'text/plain',
        text: 'This is an embedded resource content.',
      },
    },
  ]);
  plain('test_multiple_content_types', [
    { type: 'text', text: 'Multiple content types test:' },
    { type: 'image', data: png, mimeType: 'image/png' },
    {
      type: 'resource',
      resource: {
        uri: 'test://mixed-content-resource',
        mimeType: 'application/json',
        text: JSON.stringify({ test: 'data', value: 123 }),
      },
    },
  ]);

  served.registerTool('test_tool_with_logging', { description: 'Logs what it does' }, async ({ mcpReq }) => {
    await mcpReq.log('info', 'Tool execution started');
    await sleep(50);
    await mcpReq.log('info', 'Tool processing data');
    await sleep(50);
    await mcpReq.log('info', 'Tool execution completed');
    return text('The tool has logged three times');
  });
  served.registerTool('test_error_handling', { description: 'Always fails' }, () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
  served.registerTool('test_tool_with_progress', { description: 'Says how far it is' }, async ({ mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
      }
      if (progress < 100) await sleep(50);
    }
    return text('The tool is done');
  });
  served.registerTool(
    'test_sampling',
    { description: "Asks the client's model", inputSchema: z.object({ prompt: z.string() }) },
    async ({ prompt }, { mcpReq }) => {
      const { content } = await mcpReq.requestSampling({
        messages: [{ role: 'user', content: { type: 'text', text: prompt } }],
        maxTokens: 100,
      });
      const said = [content].flat().flatMap((part) => (part.type === 'text' ? [part.text] : []));
      return text(`LLM response: ${said.join()}`);
    },
  );
  served.registerTool(
    'test_elicitation',
    { description: 'Asks the user', inputSchema: z.object({ message: z.string() }) },
    async ({ message }, { mcpReq }) => {
      const { action, content } = await mcpReq.elicitInput({
        message,
        requestedSchema: {
          type: 'object',
          properties: {
            username: { type: 'string', description: "User's response" },
            email: { type: 'string', description: "User's email address" },
          },
          required: ['username', 'email'],
        },
      });
      return text(`User response: action=${action}, content=${JSON.stringify(content)}`);
    },
  );
  for (const [name, requestedSchema] of Object.entries(elicitations)) {
    served.registerTool(name, { description: 'Asks the user' }, async ({ mcpReq }) => {
      const { action, content } = await mcpReq.elicitInput({ message: 'Please fill this in', requestedSchema });
      return text(`Elicitation completed: action=${action}, content=${JSON.stringify(content)}`);
    });
  }
  served.registerTool(
    'json_schema_2020_12_tool',
    {
      description: 'Tool with JSON Schema 2020-12 features',
      inputSchema: fromJsonSchema({
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        type: 'object',
        $defs: {
          address: { type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } },
        },
        properties: { name: { type: 'string' }, address: { $ref: '#/$defs/address' } },
        additionalProperties: false,
      }),
    },
    () => text('Valid'),
  );
  served.registerTool('test_reconnection', { description: 'Ends its stream in the middle' }, async ({ http }) => {
    http?.closeSSE?.();
    await sleep(100);
    return text('Reconnection test completed');
  });
}

function addResources(served: McpServer): void {
  const description = 'For testing';
  served.registerResource(
    'static-text',
    'test://static-text',
    { description, mimeType: 'text/plain' },
    ({ href: uri }) => ({
      contents: [{ uri, mimeType: 'text/plain', text: 'This is the content of the static text resource.' }],
    }),
  );
  served.registerResource(
    'static-binary',
    'test://static-binary',
    { description, mimeType: 'image/png' },
    ({ href: uri }) => ({ contents: [{ uri, mimeType: 'image/png', blob: png }] }),
  );
  served.registerResource(
    'watched-resource',
    'test://watched-resource',
    { description, mimeType: 'text/plain' },
    ({ href: uri }) => ({ contents: [{ uri, mimeType: 'text/plain', text: 'Watched' }] }),
  );
  served.registerResource(
    'template',
    new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description, mimeType: 'application/json' },
    ({ href: uri }, { id }) => ({
      contents: [
        {
          uri,
          mimeType: 'application/json',
          text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${String(id)}` }),
        },
      ],
    }),
  );
  served.server.setRequestHandler('resources/subscribe', () => ({}));
  served.server.setRequestHandler('resources/unsubscribe', () => ({}));
}

function addPrompts(served: McpServer): void {
  const message = (said: string) => ({ role: 'user' as const, content: { type: 'text' as const, text: said } });
  served.registerPrompt('test_simple_prompt', { description: 'Simple' }, () => ({
    messages: [message('This is a simple prompt for testing.')],
  }));
  const argument = (name: string) =>
    completable(z.string().describe(name), (value) =>
      ['paris', 'park', 'party'].filter((each) => each.startsWith(value)),
    );
  served.registerPrompt(
    'test_prompt_with_arguments',
    {
      description: 'With arguments',
      argsSchema: z.object({ arg1: argument('First test argument'), arg2: argument('Second test argument') }),
    },
    ({ arg1, arg2 }) => ({ messages: [message(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }),
  );
  served.registerPrompt(
    'test_prompt_with_embedded_resource',
    { description: 'With a resource', argsSchema: z.object({ resourceUri: z.string() }) },
    ({ resourceUri: uri }) => ({
      messages: [
        {
          role: 'user',
          content: {
            type: 'resource',
            resource: { uri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
          },
        },
        message('Please process the embedded resource above.'),
      ],
    }),
  );
  served.registerPrompt('test_prompt_with_image', { description: 'With an image' }, () => ({
    messages: [
      { role: 'user', content: { type: 'image', data: png, mimeType: 'image/png' } },
      message('Please analyze the image above.'),
    ],
  }));
}
