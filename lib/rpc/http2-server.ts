import type { Http2Server } from 'node:http2';
import type { Server } from '@grpc/grpc-js';

/** What is inside grpc-js's server that makes its HTTP/2 servers. */
interface Inside {
  createHttp2Server(credentials: unknown): Http2Server;
}

/**
 * Has `change` change each HTTP/2 server that grpc-js makes for `server`, before it is bound and after those that were asked for earlier.
 * grpc-js 1.14 has no public way to it.
 */
export function changeHttp2Server(server: Server, change: (http2Server: Http2Server) => void): void {
  const inside = server as unknown as Inside;
  const create = inside.createHttp2Server.bind(server);
  inside.createHttp2Server = (credentials) => {
    const http2Server = create(credentials);
    change(http2Server);
    return http2Server;
  };
}
