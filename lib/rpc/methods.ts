/** One RPC of a service definition that ts-proto generated for grpc-js. */
export interface MethodDefinition<Request, Response> {
  path: string;
  requestStream: false;
  responseStream: false;
  requestSerialize(value: Request): Buffer;
  requestDeserialize(encoded: Buffer): Request;
  responseSerialize(value: Response): Buffer;
  responseDeserialize(encoded: Buffer): Response;
}

/** The RPCs of a service definition as functions that return promises; `Extra` are parameters behind the request. */
export type Methods<D, Extra extends unknown[]> = {
  [K in keyof D]: D[K] extends MethodDefinition<infer Request, infer Response>
    ? (request: Request, ...extra: Extra) => Promise<Response>
    : never;
};
