import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** Checks of the documents that are written by hand or generated: links, marks of shell blocks, and the length of the README. */

const root = path.resolve(import.meta.dirname, '..');
const written = ['*.md', 'docs/**/*.md', 'client/*.md'];
const readmeLines = 250;

/** @throws Error naming each link that leads nowhere, each page that no index names, each block that isn't marked, and a README that is too long */
export function checkDocuments(): void {
  const files = globSync(written, { cwd: root });
  const documents = new Map(files.map((file) => [file, readFileSync(path.join(root, file), 'utf8')]));
  const problems = problemsOf(documents, (file) => existsSync(path.join(root, file)));
  if (problems.length > 0) throw new Error(problems.map((problem) => `\n  ${problem}`).join(''));
}

/**
 * What is wrong with documents.
 *
 * @param documents texts in Markdown by their paths from the project folder
 * @param exists whether there is a file or folder at a path
 */
export function problemsOf(documents: ReadonlyMap<string, string>, exists: (file: string) => boolean): string[] {
  const anchors = new Map([...documents].map(([file, text]) => [file, anchorsOf(text)]));
  const hidden = [...documents.keys()]
    .filter((file) => documents.has(indexOf(file) ?? ''))
    .filter((file) => !linksIn(documents.get(indexOf(file)!)!).some((link) => targetOf(indexOf(file)!, link) === file))
    .map((file) => `${file}: ${indexOf(file)} doesn't name it`);
  const inFiles = [...documents].flatMap(([file, text]) => {
    const links = linksIn(text).flatMap((link) => {
      const [, anchor] = link.split('#');
      const target = targetOf(file, link);
      if (target.startsWith('..') || !exists(target)) return [`${file}: there is no ${link}`];
      const known = anchors.get(target);
      if (anchor === undefined || known === undefined || known.has(anchor)) return [];
      return [`${file}: ${target} has no heading #${anchor}`];
    });
    const unmarked = [...text.matchAll(/^ *```(sh|bash|shell|console)\b(.*)$/gm)]
      .filter(([, language, mark]) => language !== 'sh' || !/^ (run( fails)?|shown)$/.test(mark!))
      .map(([line]) => `${file}: ${line.trim()} should be \`sh run\`, \`sh run fails\` or \`sh shown\``);
    const lines = text.split('\n').length - 1;
    const long =
      file === 'README.md' && lines > readmeLines ? [`${file} has ${lines} lines, more than ${readmeLines}`] : [];
    return [...links, ...unmarked, ...long];
  });
  return [...inFiles, ...hidden];
}

/** The index that has to name a page, if there is one. */
function indexOf(file: string): string | undefined {
  const index = path.posix.join(path.posix.dirname(file), 'README.md');
  return file.startsWith('docs/') && file !== index ? index : undefined;
}

/** The file that a link in a document leads to. */
function targetOf(file: string, link: string): string {
  const [to = ''] = link.split('#');
  return to === '' ? file : path.posix.join(path.posix.dirname(file), decodeURI(to));
}

/** Relative links of a text, without what is code. */
function linksIn(text: string): string[] {
  const prose = withoutCode(text).replaceAll(/`[^`\n]*`/g, '');
  return [...prose.matchAll(/\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)/g)]
    .map(([, link]) => link!)
    .filter((link) => !/^[a-z][a-z\d+.-]*:/i.test(link));
}

function withoutCode(text: string): string {
  return text.replaceAll(/^( *)(```+|~~~+)[^]*?^\1\2$/gm, '');
}

/** The anchors that GitHub gives the headings of a text. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading] of withoutCode(text).matchAll(/^#{1,6} +(.+?)(?: +#+)?$/gm)) {
    const shown = heading!.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1');
    const base = shown
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\p{M}_\- ]/gu, '')
      .replaceAll(' ', '-');
    let anchor = base;
    for (let count = 1; anchors.has(anchor); count += 1) anchor = `${base}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}
