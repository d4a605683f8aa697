/** How the assistant introduces itself to MCP servers. */
export const clientInfo = { name: 'chat4all-assistant', version: '1.0.0' } as const;
