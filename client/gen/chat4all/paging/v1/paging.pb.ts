// Made from the protos by dev/client: `npm run generate`.

/** Which part of a list an answer has. */
export type Pagination = {
  /** The offset that was applied. */
  offset: number;
  /** The limit that was applied. */
  limit: number;
  /** The total number. */
  total: number;
};
