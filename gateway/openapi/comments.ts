import type { DescEnum, DescField, DescFile, DescMessage, DescMethod, DescService } from '@bufbuild/protobuf';

type Described = DescService | DescMethod | DescMessage | DescField | DescEnum | DescEnum['values'][number];

const files = new WeakMap<DescFile, ReadonlyMap<string, string>>();

/**
 * The comment before a declaration as Markdown: each paragraph on a line, a blank line between them. Empty where there is no comment, or
 * the descriptor set was built without them.
 */
export function commentOf(desc: Described): string {
  const comment = commentsOf(fileOf(desc)).get(pathOf(desc).join()) ?? '';
  return comment
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replaceAll(/\s*\n\s*/g, ' '))
    .filter((paragraph) => paragraph !== '')
    .join('\n\n');
}

/** Splits a comment into its first sentence, the title, and the rest. */
export function titled(comment: string): { title: string; rest: string } {
  const [, sentence = comment, rest = ''] = /^(.+?[.:])(?:\s+([A-Z`][\s\S]*))?$/.exec(comment) ?? [];
  return { title: sentence.replace(/[.:]$/, '').replaceAll('`', ''), rest };
}

/** The comments of a file by the path of their declaration (SourceCodeInfo.Location in descriptor.proto). */
function commentsOf(file: DescFile): ReadonlyMap<string, string> {
  let comments = files.get(file);
  if (comments === undefined) {
    const locations = file.proto.sourceCodeInfo?.location ?? [];
    comments = new Map(locations.map(({ path, leadingComments }) => [path.join(), leadingComments]));
    files.set(file, comments);
  }
  return comments;
}

function fileOf(desc: Described): DescFile {
  switch (desc.kind) {
    case 'rpc':
    case 'enum_value':
    case 'field':
      return desc.parent.file;
    default:
      return desc.file;
  }
}

/** The path of a declaration: field numbers of descriptor.proto, each followed by an index. */
function pathOf(desc: Described): number[] {
  switch (desc.kind) {
    case 'service':
      return [6, desc.file.proto.service.indexOf(desc.proto)];
    case 'rpc':
      return [...pathOf(desc.parent), 2, desc.parent.proto.method.indexOf(desc.proto)];
    case 'field':
      return [...pathOf(desc.parent), 2, desc.parent.proto.field.indexOf(desc.proto)];
    case 'enum_value':
      return [...pathOf(desc.parent), 2, desc.parent.proto.value.indexOf(desc.proto)];
    case 'message':
      return desc.parent === undefined
        ? [4, desc.file.proto.messageType.indexOf(desc.proto)]
        : [...pathOf(desc.parent), 3, desc.parent.proto.nestedType.indexOf(desc.proto)];
    case 'enum':
      return desc.parent === undefined
        ? [5, desc.file.proto.enumType.indexOf(desc.proto)]
        : [...pathOf(desc.parent), 4, desc.parent.proto.enumType.indexOf(desc.proto)];
  }
}
