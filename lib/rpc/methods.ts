interface Codec<Request, Response> {
  path: string;
  requestSerialize(value: Request): Buffer;
  requestDeserialize(encoded: Buffer): Request;
  responseSerialize(value: Response): Buffer;
  responseDeserialize(encoded: Buffer): Response;
}

/** A unary RPC of a service definition that ts-proto generated for grpc-js. */
export interface UnaryMethod<Request, Response> extends Codec<Request, Response> {
  requestStream: false;
  responseStream: false;
}

/** A client-streaming RPC whose stream is a request and then bytes (`raw_body` of chat4all.options.v1). */
export interface UploadMethod<Request, Response> extends Codec<Request, Response> {
  requestStream: true;
  responseStream: false;
}

/** A server-streaming RPC: messages, or a response and then bytes (`raw_body` of chat4all.options.v1). */
export interface ServerStreamMethod<Request, Response> extends Codec<Request, Response> {
  requestStream: false;
  responseStream: true;
}

/** An RPC of a service definition that ts-proto generated for grpc-js. */
export type MethodDefinition<Request, Response> =
  UnaryMethod<Request, Response> | UploadMethod<Request, Response> | ServerStreamMethod<Request, Response>;

/** Bytes as they come. A piece may be reused by whoever yields it once the next one is asked for. */
export type Bytes = AsyncIterable<Uint8Array>;

/** The bytes behind the first message of an upload. */
export interface UploadBytes extends Bytes {
  /**
   * Asks the gateway to PUT the bytes to a URL that accepts exactly them, which saves a hop. Missing unless the call comes from a gateway
   * that can. May be called once, before the bytes are read.
   *
   * @returns `put` once the URL has confirmed them; `sent` if the gateway can't reach the URL and sends the bytes here after all; `failed`
   *   if they are lost, and it is unknown whether the URL has stored them
   */
  handOver?(url: string): Promise<'put' | 'sent' | 'failed'>;
}

/** The answer of a download: the first message, and the bytes that follow it. */
export interface Download<Response> {
  head: Response;
  body: Bytes;
  /**
   * A URL from which the gateway can GET the whole content, with a Range, instead of receiving the bytes from here; undefined if there is
   * none. Only called for gateways that can.
   */
  place?(): Promise<string | undefined>;
}

/** The unary RPCs of a service definition as functions that return promises; `Extra` are parameters behind the request. */
export type Methods<D, Extra extends unknown[]> = {
  [K in keyof D]: D[K] extends UnaryMethod<infer Request, infer Response>
    ? (request: Request, ...extra: Extra) => Promise<Response>
    : never;
};
