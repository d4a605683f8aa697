import { effect } from '@preact/signals';
import { MessagesIcon } from '../shell/icons.tsx';
import { epoch, isLive, onEvent } from '../shell/live.ts';
import type { Part } from '../shell/parts.ts';
import { apply, known, load, unreadOf } from './conversations.ts';
import { Messages } from './messages.tsx';
import { startOutbox } from './outbox.ts';
import { applyTyping } from './typing.ts';
import { startUploads } from './uploads.ts';

export const messages: Part = {
  name: 'messages',
  title: 'Messages',
  Icon: MessagesIcon,
  View: Messages,
  start() {
    onEvent(apply);
    onEvent(applyTyping);
    startUploads();
    startOutbox();
    // Once events are told: what is loaded earlier could miss some.
    effect(() => {
      if (isLive.value && epoch.value >= 0) void load({ anew: true });
    });
  },
  unseen: () => [...known.value.values()].filter((each) => unreadOf(each) > 0).length,
};
