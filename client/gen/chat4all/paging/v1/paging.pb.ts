// Made from the protos by dev/client: `npm run generate`.

/** Which part of a list an answer has. */
export type Pagination = {
  /** How many were passed over. */
  offset: number;
  /** How many there may be in the answer. */
  limit: number;
  /** How many there are in all. */
  total: number;
};
