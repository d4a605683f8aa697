/** A header's name with capitals. */
export function canonicalHeader(name: string): string {
  return name.replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());
}

/** The values of a header, each as it was sent. @param name in lower case */
export function valuesOf(name: string, rawHeaders: readonly string[]): string[] {
  const values: string[] = [];
  // Names and values by turns.
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const given = rawHeaders[at] as string;
    if (given.length === name.length && given.toLowerCase() === name) values.push(rawHeaders[at + 1] as string);
  }
  return values;
}
