import { mockConnector } from '../mock.ts';

export const connector = mockConnector({ name: 'instagram', title: 'Instagram' });
