import test from 'ava';
import { v4 as uuid } from 'uuid';
import { DeliveryAttempted, DeliveryEnded } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { deadLetterOf, startForgetting } from './dead-letters.ts';

test('deadLetterOf: a report names its message, recipient and channel, also one of an attempt', (t) => {
  const [messageId, recipientId] = [uuid(), uuid()];
  const at = new Date('2026-01-01T10:00:00.123Z');
  const about = { messageId, recipientId, channel: 'whatsapp', attempts: 1, error: 'away', at, replay: 0 };
  const values = {
    DeliveryAttempted: DeliveryAttempted.encode({ ...about, nextAttemptAt: at }).finish(),
    DeliveryEnded: DeliveryEnded.encode({ ...about, status: MessageStatus.MESSAGE_STATUS_FAILED }).finish(),
  };
  for (const [name, value] of Object.entries(values)) {
    const letter = deadLetterOf({
      id: uuid(),
      type: `chat4all.message.v1.${name}`,
      value,
      key: uuid(),
      requestId: uuid(),
      topic: 'message_status',
      partition: 0,
    });
    t.like(letter, { messageId, recipientId, channel: 'whatsapp' }, name);
  }
});

test('startForgetting: dead letters go once their time is over, counted from now', async (t) => {
  const log = openLog({ name: 'message', format: 'json', level: 'silent' });
  const moments: Date[] = [];
  const letters = {
    async forget(moment: Date) {
      moments.push(moment);
      return 0;
    },
  };
  const began = Date.now();
  const forgetting = startForgetting({ letters, log, retention: 86_400_000 });
  await eventually(
    'it has looked',
    () => moments.length,
    (count) => count === 1,
  );
  await forgetting.stop();
  const moment = moments[0]!.getTime() + 86_400_000;
  t.true(moment >= began && moment <= Date.now());
});
