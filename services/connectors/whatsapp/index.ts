import { mockConnector } from '../mock.ts';

export const connector = mockConnector({ name: 'whatsapp', title: 'WhatsApp' });
