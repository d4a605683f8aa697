/**
 * The maximum size of a page's items together. gRPC clients accept messages of 4 MiB by default; the difference is for the rest of the
 * answer.
 */
export const maxPageBytes = 3 * 1024 * 1024;

/**
 * The first items of a page that fit into `maxPageBytes`, but at least one, so that paging always advances.
 *
 * @param sizeOf the approximate size of an encoded item, in bytes
 */
export function fitting<Item>(items: readonly Item[], sizeOf: (item: Item) => number): readonly Item[] {
  let bytes = 0;
  const end = items.findIndex((item) => (bytes += sizeOf(item)) > maxPageBytes);
  return end === -1 ? items : items.slice(0, Math.max(end, 1));
}
