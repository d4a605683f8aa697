import type { Breach } from './breach.ts';
import type { ChatObservations, ChatRow } from './chatters.ts';

/** Nothing that was written is lost, nothing is answered that the model has not said, and what tools do is done once. */
export function checkChats(observations: ChatObservations): Breach[] {
  return [...checkMessages(observations), ...checkAnswers(observations), ...checkTasks(observations)];
}

const withSiblings = (rows: readonly ChatRow[]) => rows.flatMap((row) => [...row.siblings, row]);

function checkMessages({ messages, histories }: ChatObservations): Breach[] {
  const breaches: Breach[] = [];
  const written = new Map(messages.map((message) => [message.text, message]));
  const counts = new Map<string, number>();
  for (const { userId, rows } of histories) {
    for (const { role, content } of rows) {
      if (role !== 'user') continue;
      counts.set(content, (counts.get(content) ?? 0) + 1);
      if (written.get(content)?.userId !== userId) {
        breaches.push({
          rule: 'forged',
          text: `the history of ${userId} has a message that they did not write: ${content}`,
        });
      }
    }
  }
  const answers = new Map(histories.flatMap(({ rows }) => withSiblings(rows)).map((row) => [row.id, row]));
  for (const { text, isAccepted, answer, tries } of messages) {
    const count = counts.get(text) ?? 0;
    if (isAccepted && count === 0) breaches.push({ rule: 'lost', text: `a message to the assistant: ${text}` });
    if (count > 1)
      breaches.push({ rule: 'doubled', text: `a message to the assistant is there ${count} times: ${text}` });
    if (answer !== undefined && answers.get(answer.messageId)?.content !== answer.text) {
      const found = JSON.stringify(answers.get(answer.messageId)?.content);
      breaches.push({
        rule: 'changed',
        text: `the answer ${answer.messageId} was ${answer.text}, and now is ${found}`,
      });
    }
    if (tries.some(({ status }) => status === 500)) {
      breaches.push({ rule: 'internal error', text: `a message to the assistant was answered 500: ${text}` });
    }
  }
  return breaches;
}

function checkAnswers({ histories, sayings }: ChatObservations): Breach[] {
  const breaches: Breach[] = [];
  const said = Map.groupBy(sayings, ({ question }) => question);
  for (const { rows } of histories) {
    let question = '';
    for (const row of rows) {
      if (row.role === 'user') question = row.content;
      if (row.role === 'user') continue;
      for (const { id, status, content } of withSiblings([row])) {
        if (status === 'streaming') breaches.push({ rule: 'not ended', text: `the answer ${id} is still being made` });
        const isSaid = (said.get(question) ?? []).some(({ text, isWhole }) =>
          status === 'completed' ? isWhole && text === content : text.startsWith(content),
        );
        if (!isSaid && (status === 'completed' || content !== '')) {
          breaches.push({ rule: 'forged', text: `the model has not said the answer ${id} (${status}): ${content}` });
        }
      }
    }
  }
  return breaches;
}

function checkTasks({ wanted, histories, tasks }: ChatObservations): Breach[] {
  const breaches: Breach[] = [];
  for (const { userId, rows } of histories) {
    const titles = tasks.get(userId) ?? [];
    const calls = withSiblings(rows).flatMap(({ toolCalls }) => toolCalls);
    for (const title of new Set(titles)) {
      const count = titles.filter((each) => each === title).length;
      if (count > 1) breaches.push({ rule: 'doubled', text: `a tool has added a task ${count} times: ${title}` });
      if (!wanted.has(title)) breaches.push({ rule: 'forged', text: `the model did not want this task: ${title}` });
      if (!calls.some((call) => call.title === title)) {
        breaches.push({ rule: 'lost', text: `no answer tells of the call that added this task: ${title}` });
      }
    }
    for (const { id, title, isError } of calls) {
      if (!isError && !titles.includes(title)) {
        breaches.push({ rule: 'no effect', text: `the call ${id} says that it has added a task: ${title}` });
      }
    }
  }
  return breaches;
}
