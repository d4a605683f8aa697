import { credentials, ServerCredentials, type ChannelCredentials } from '@grpc/grpc-js';
import { ConfigError, text, type Config } from '../config.ts';
import { isSignedBy, readCertificates, readKeyPair } from '../tls.ts';

/** Settings of every process that serves or calls gRPC: all three, or none. */
export const transportSettings = {
  GRPC_TLS_CERT: text()
    .optional()
    .describe('PEM file with the certificate of this process: with it gRPC goes over TLS, and both sides show one'),
  GRPC_TLS_KEY: text().optional().describe('PEM file with the private key of GRPC_TLS_CERT'),
  GRPC_TLS_CA: text().optional().describe('PEM file with the authority that signed the certificates of all processes'),
};

/** The certificate of a TLS client and the authority of its servers, as PEM. */
export interface TlsOptions {
  ca: Buffer;
  cert: Buffer;
  key: Buffer;
}

/** How gRPC is transported: in plain text, or over mutual TLS with certificates signed by GRPC_TLS_CA. */
export interface Transport {
  encrypted: boolean;
  /** Refuses clients without such a certificate. */
  server: ServerCredentials;
  /** Refuses servers without such a certificate, or whose certificate isn't for the host that was called. */
  client: ChannelCredentials;
  /** The same for a server on this machine, whose certificate isn't for the address at which it is reached. */
  neighbour: ChannelCredentials;
  /** The same, for a client that isn't grpc-js's; undefined for plain text. */
  tls: TlsOptions | undefined;
}

/** @throws ConfigError if the settings are not all there, or the files can't be used */
export function openTransport(config: Config<typeof transportSettings>): Transport {
  const pair = readKeyPair({ cert: 'GRPC_TLS_CERT', key: 'GRPC_TLS_KEY' }, config);
  if ((pair === undefined) !== (config.GRPC_TLS_CA === undefined)) {
    throw new ConfigError(['set all of GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA, or none']);
  }
  if (pair === undefined) {
    const [server, client] = [ServerCredentials.createInsecure(), credentials.createInsecure()];
    return { encrypted: false, server, client, neighbour: client, tls: undefined };
  }
  const authority = readCertificates('GRPC_TLS_CA', config.GRPC_TLS_CA as string);
  if (!isSignedBy(pair.cert, authority)) throw new ConfigError(['GRPC_TLS_CERT is not signed by GRPC_TLS_CA']);
  return {
    encrypted: true,
    server: ServerCredentials.createSsl(authority, [{ cert_chain: pair.cert, private_key: pair.key }], true),
    client: credentials.createSsl(authority, pair.key, pair.cert),
    neighbour: credentials.createSsl(authority, pair.key, pair.cert, { checkServerIdentity: () => undefined }),
    tls: { ca: authority, ...pair },
  };
}

/** Whether a gRPC target (`host:port`, `dns:///host:port`) or a host is on this machine (loopback or a socket). */
export function staysHere(target: string): boolean {
  const host = target.replace(/^(dns|ipv4|ipv6):\/*/i, '');
  return /^(unix:|127(\.\d+){3}(:\d+)?$|localhost(:\d+)?$|::1$|\[::1\](:\d+)?$)/i.test(host);
}
