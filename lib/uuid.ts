const pattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Whether a text is a lower-case UUID of any version, as PostgreSQL accepts it: clients may choose ids of any version. */
export function isUuid(text: string): boolean {
  return pattern.test(text);
}
