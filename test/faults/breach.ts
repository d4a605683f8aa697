/** A promise that was broken. */
export interface Breach {
  rule: Rule;
  text: string;
  /** The message that it is about, if it is about one. */
  messageId?: string;
}

export type Rule =
  | 'lost'
  | 'forged'
  | 'changed'
  | 'not ended'
  | 'failed'
  | 'books'
  | 'gap'
  | 'no effect'
  | 'doubled'
  | 'order'
  | 'topics'
  | 'dead letter'
  | 'orphan'
  | 'file lost'
  | 'internal error'
  | 'audit'
  | 'slow';
