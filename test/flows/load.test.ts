import test from 'ava';
import { eventually } from '../eventually.ts';
import type { MessageDetails, MessagePage } from '../rest.ts';
import {
  deliveryLine,
  everyDeliveryLine,
  everyMessage,
  openConversation,
  sendPatiently,
  openedMeshes,
  type Person,
} from './meshes.ts';

const writers = 50;
const messagesEach = 20;
const groupSize = 5;

// However slow the machine is: this is not about how soon a message is delivered.
const meshes = openedMeshes(['embedded', 'kafka'], { people: writers, env: { DELIVERY_DEADLINE: '10m' } });

for (const mesh of meshes) {
  const { bus, people } = mesh;

  test.serial(
    `${bus}: 50 people write 20 messages each at once: none is lost or doubled, and all read the same`,
    async (t) => {
      t.timeout(120_000);
      // Each of them is in a group of neighbours and in one of people from everywhere.
      const numbers = Array.from({ length: writers / groupSize }, (_, number) => number);
      const groups = [
        ...numbers.map((number) => people.slice(number * groupSize, (number + 1) * groupSize)),
        ...numbers.map((number) => people.filter((_, index) => index % numbers.length === number)),
      ];
      const ids = await Promise.all(groups.map((members) => openConversation(members)));
      const conversations = new Map(ids.map((id, index) => [id, groups[index]!]));
      const mine = (person: Person) => ids.filter((id) => conversations.get(id)!.includes(person));

      /** By conversation and sender, in the order in which they were sent. */
      const sent = new Map<string, string[]>();
      await Promise.all(
        people.map(async (person) => {
          const own = mine(person);
          t.is(own.length, 2);
          for (let count = 0; count < messagesEach; count++) {
            const id = own[count % own.length]!;
            const messageId = await sendPatiently(person, id, {
              payload: { type: 'text', text: `${person.username} ${count}` },
            });
            const key = `${id} ${person.userId}`;
            sent.set(key, [...(sent.get(key) ?? []), messageId]);
          }
        }),
      );

      const perConversation = groupSize * (messagesEach / 2);
      const isDelivered = (messages: MessagePage['messages']) => messages.every(({ status }) => status === 'delivered');
      const lists = new Map<string, MessagePage['messages']>();
      for (const [id, [reader]] of conversations) {
        const read = () => everyMessage(reader!, id);
        lists.set(id, await eventually(`all of ${id} is delivered`, read, isDelivered, 60_000));
      }
      const told = everyDeliveryLine(mesh.services.connectors!.lines);

      for (const [id, members] of conversations) {
        const all = lists.get(id)!;
        t.deepEqual(
          all.map((message) => message.seq),
          Array.from({ length: perConversation }, (_, index) => index + 1),
        );
        for (const member of members) {
          t.deepEqual(
            all.filter((message) => message.from === member.userId).map((message) => message.message_id),
            sent.get(`${id} ${member.userId}`),
          );
          t.deepEqual(await everyMessage(member, id), all);
        }
        const pages: MessagePage['messages'] = [];
        while (pages.length < perConversation) {
          const query = `limit=7&offset=${pages.length}`;
          const page = await members[1]!.rest.get<MessagePage>(`/v1/conversations/${id}/messages?${query}`);
          t.is(page.total, perConversation);
          pages.push(...page.messages);
        }
        t.deepEqual(pages, all.toReversed());

        for (const { message_id: messageId, from } of all) {
          const others = members.map((member) => member.userId).filter((userId) => userId !== from);
          t.deepEqual(
            told.get(messageId)?.toSorted(),
            others.map((userId) => deliveryLine(messageId, userId, 'WhatsApp')).toSorted(),
          );
        }
        const last = all.at(-1)!;
        const { deliveries } = await members[2]!.rest.get<MessageDetails>(`/v1/messages/${last.message_id}`);
        t.deepEqual(
          deliveries.map(({ recipient, status, attempts }) => [recipient, status, attempts]),
          last.to.map((recipient) => [recipient, 'delivered', 1]),
        );
      }
    },
  );
}
