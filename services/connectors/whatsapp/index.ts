import { mockConnector } from '../simulation/mock-connector.ts';

export const connector = mockConnector({ name: 'whatsapp', title: 'WhatsApp' });
