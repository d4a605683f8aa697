import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { conversationEntities } from './conversations/conversations-store.ts';
import { MessageNamespaceEntity } from './mcp/message-ids-store.ts';
import { mcpSessionEntities } from './mcp/sessions-store.ts';
import { TaskEntity } from './tasks/tasks-store.ts';
import { turnEntities } from './turns/turns-store.ts';

export const database: DatabaseDefinition = {
  schema: 'assistant',
  entities: [...conversationEntities, ...turnEntities, TaskEntity, MessageNamespaceEntity, ...mcpSessionEntities],
  migrations: [
    {
      name: '0001-conversations',
      load: async () => (await import('./migrations/0001-conversations.ts')).Conversations,
    },
    { name: '0002-tasks-and-mcp', load: async () => (await import('./migrations/0002-tasks-and-mcp.ts')).TasksAndMcp },
  ],
};
