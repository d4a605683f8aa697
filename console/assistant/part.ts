import { AssistantIcon } from '../shell/icons.tsx';
import type { Part } from '../shell/parts.ts';
import { Assistant } from './assistant.tsx';
import { startQuestions } from './chat.ts';

export const assistant: Part = {
  name: 'assistant',
  title: 'Assistant',
  Icon: AssistantIcon,
  View: Assistant,
  start: startQuestions,
};
