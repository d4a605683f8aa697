/**
 * The most bytes of a page's items together: gRPC clients accept messages of 4 MiB by default, which leaves room for the rest.
 */
export const mostPageBytes = 3 * 1024 * 1024;

/**
 * The first items of a page that fit into an answer; one always does, so that who asks for the rest comes to its end.
 *
 * @param sizeOf bytes of an encoded item, about
 */
export function fitting<Item>(items: readonly Item[], sizeOf: (item: Item) => number): readonly Item[] {
  let bytes = 0;
  const end = items.findIndex((item) => (bytes += sizeOf(item)) > mostPageBytes);
  return end === -1 ? items : items.slice(0, Math.max(end, 1));
}
