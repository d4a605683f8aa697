/** The assistant's client info for MCP servers. */
export const clientInfo = { name: 'chat4all-assistant', version: '1.0.0' } as const;
