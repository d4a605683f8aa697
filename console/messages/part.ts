import { MessagesIcon } from '../shell/icons.tsx';
import type { Part } from '../shell/parts.ts';
import { Messages } from './messages.tsx';

export const messages: Part = { name: 'messages', title: 'Messages', Icon: MessagesIcon, View: Messages };
