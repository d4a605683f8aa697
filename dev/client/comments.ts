import type { DescEnum, DescEnumValue, DescField, DescMessage, DescMethod, DescService } from '@bufbuild/protobuf';

type Commented = DescEnum | DescEnumValue | DescField | DescMessage | DescMethod | DescService;

/** What the proto says of a part of it, as a JSDoc comment of whole lines; nothing if it says nothing. */
export function commentsOf(part: Commented, indent = ''): string {
  const path = pathOf(part).join();
  const file =
    part.kind === 'enum_value' || part.kind === 'field' || part.kind === 'rpc' ? part.parent.file : part.file;
  const found = file.proto.sourceCodeInfo?.location.find((location) => location.path.join() === path);
  // Nothing that it says may end the comment.
  const text = found?.leadingComments.trimEnd().replaceAll('*/', '*∕') ?? '';
  if (text === '') return '';
  const lines = text.split('\n').map((line) => line.replace(/^ /, '').trimEnd());
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return [`${indent}/**`, ...lines.map((line) => `${indent} * ${line}`.trimEnd()), `${indent} */`, ''].join('\n');
}

/** Where descriptor.proto keeps a part: numbers of fields, each with an index into it. */
function pathOf(part: Commented): number[] {
  switch (part.kind) {
    case 'message':
      return part.parent === undefined
        ? [4, part.file.proto.messageType.indexOf(part.proto)]
        : [...pathOf(part.parent), 3, part.parent.proto.nestedType.indexOf(part.proto)];
    case 'enum':
      return part.parent === undefined
        ? [5, part.file.proto.enumType.indexOf(part.proto)]
        : [...pathOf(part.parent), 4, part.parent.proto.enumType.indexOf(part.proto)];
    case 'service':
      return [6, part.file.proto.service.indexOf(part.proto)];
    default:
      // What is in a message, an enum or a service is its field 2.
      return [
        ...pathOf(part.parent),
        2,
        (part.parent.proto as unknown as Record<string, unknown[]>)[listOf[part.kind]]!.indexOf(part.proto),
      ];
  }
}

const listOf = { field: 'field', enum_value: 'value', rpc: 'method' } as const;
