import { getExtension, hasExtension, type DescExtension, type FileRegistry, type Message } from '@bufbuild/protobuf';

interface Topic extends Message {
  name: string;
  groups: string[];
}

/**
 * The text of gen/events.ts: the topics of the bus with their consumer groups, and the types of the events, as the options of the protos
 * declare them.
 *
 * @throws Error if an event names a topic that no proto declares
 */
export function eventCatalogue(registry: FileRegistry): string {
  const topicsOption = extensionOf(registry, 'chat4all.options.v1.topics');
  const topicOption = extensionOf(registry, 'chat4all.options.v1.topic');
  const topics = [...registry.files].flatMap(({ proto: { options } }) =>
    options === undefined ? [] : (getExtension(options, topicsOption) as Topic[]),
  );
  const events = [...registry].flatMap((each) => {
    if (each.kind !== 'message' || each.proto.options === undefined) return [];
    if (!hasExtension(each.proto.options, topicOption)) return [];
    return [{ ...each, topic: getExtension(each.proto.options, topicOption) as string }];
  });
  for (const { typeName, topic } of events) {
    if (!topics.some(({ name }) => name === topic))
      throw new Error(`${typeName}: no proto declares the topic ${topic}`);
  }
  const groups = [...new Set(topics.flatMap((topic) => topic.groups))];
  return [
    '// Made by `npm run generate` from the options `topics` and `topic` of the protos.',
    '',
    '/** The topics of the event bus. */',
    objectOf(
      'topics',
      topics.map(({ name }) => [keyOf(name), valueOf(name)]),
    ),
    '',
    '/** The consumer groups. */',
    objectOf(
      'groups',
      groups.map((name) => [keyOf(name), valueOf(name)]),
    ),
    '',
    '/** The types of the events. */',
    objectOf(
      'eventTypes',
      events.map(({ name, typeName }) => [name, quoted(typeName)]),
    ),
    ...topics.filter(({ name }) => name.includes(channel)).flatMap(({ name }) => ['', channelFunction(name)]),
    '',
  ].join('\n');
}

const channel = '{channel}';

function extensionOf(registry: FileRegistry, name: string): DescExtension {
  const found = registry.getExtension(name);
  if (found === undefined) throw new Error(`${name} is not in the descriptor set`);
  return found;
}

function objectOf(name: string, entries: readonly (readonly [key: string, value: string])[]): string {
  const lines = entries.toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => `  ${key}: ${value},`);
  return [`export const ${name} = {`, ...lines, '} as const;'].join('\n');
}

/** `message_status` is `messageStatus`, and `{channel}_outgoing` is `outgoing`. */
function keyOf(name: string): string {
  return name.replace(`${channel}_`, '').replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function valueOf(name: string): string {
  return name.includes(channel) ? `(channel: string) => \`${name.replace(channel, '${channel}')}\`` : quoted(name);
}

function channelFunction(name: string): string {
  const key = keyOf(name);
  const pattern = `/^${name.replace(channel, '(.*)')}$/`;
  return [
    `/** The channel whose topic this is; undefined if it is no topic \`${name}\`. */`,
    `export function channelOf${key[0]!.toUpperCase()}${key.slice(1)}(topic: string): string | undefined {`,
    `  return ${pattern}.exec(topic)?.[1];`,
    '}',
  ].join('\n');
}

function quoted(text: string): string {
  return `'${text}'`;
}
