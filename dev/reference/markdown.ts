/** A table in Markdown. Its cells may have any text but for line breaks. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Text as code; nothing of nothing. */
export function code(text: string): string {
  return text === '' ? '' : `\`${text}\``;
}

/**
 * A description that becomes Markdown: names of settings and what looks like a value are shown as code, and nothing in it as HTML. What is code
 * already stays as it is.
 */
export function prose(text: string): string {
  const parts = text.split(/(`[^`]*`)/);
  return parts.map((part) => (part.startsWith('`') ? part : marked(part))).join('');
}

function marked(text: string): string {
  const marks =
    /https?:\/\/[^\s;,)]+(?=[\s;,)]|$)|\{"[^;]*\}|[\w./]*[<[{][\w |<>=:/?@.\][-]+[>}\]][^\s,;)]*|\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?:=\w+)?\b/g;
  return text.replaceAll(marks, (found) => `\`${found}\``);
}

/** The line under a page's title that says how it is made. */
export function madeOf(source: string): string {
  return `<!-- Made by \`npm run generate\` from ${source}; \`npm run check\` compares it. -->`;
}
