/** A part of a text: prose, or code between fences. */
export interface Block {
  kind: 'prose' | 'code';
  text: string;
  /** What the fence says of the code, which is mostly its language. */
  language: string;
}

/** Up to three spaces, a fence, and what it says (CommonMark 4.5). */
const fence = /^ {0,3}(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$/;

/** Divides a text at the fences of Markdown. Nothing else of Markdown means anything here. Code whose end has not come yet is code. */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = [];
  let lines: string[] = [];
  /** The fence that has opened the block. */
  let opening: string | undefined;
  let language = '';
  const end = () => {
    const said = lines.join('\n');
    if (opening !== undefined) blocks.push({ kind: 'code', text: said, language });
    else if (said.trim() !== '') blocks.push({ kind: 'prose', text: said.replace(/^\n+|\n+$/g, ''), language: '' });
    lines = [];
  };
  for (const line of text.split('\n')) {
    const [, marks, info] = fence.exec(line.replace(/\r$/, '')) ?? [];
    const opens = opening === undefined && marks !== undefined && !(marks[0] === '`' && info!.includes('`'));
    const closes = opening !== undefined && marks?.startsWith(opening) === true && info === '';
    if (opens || closes) {
      end();
      opening = opens ? marks : undefined;
      language = opens ? info!.split(/\s/, 1)[0]! : '';
    } else {
      lines.push(line);
    }
  }
  end();
  return blocks;
}
