import type { Http2Server } from 'node:http2';
import type { Server } from '@grpc/grpc-js';

/** The private method of grpc-js's server that creates its HTTP/2 servers. */
interface ServerInternals {
  createHttp2Server(credentials: unknown): Http2Server;
}

/**
 * Applies `change` to each HTTP/2 server that grpc-js creates for `server`, before it is bound and after earlier changes. grpc-js 1.14 has
 * no public access to them.
 */
export function changeHttp2Server(server: Server, change: (http2Server: Http2Server) => void): void {
  const internals = server as unknown as ServerInternals;
  const create = internals.createHttp2Server.bind(server);
  internals.createHttp2Server = (credentials) => {
    const http2Server = create(credentials);
    change(http2Server);
    return http2Server;
  };
}
