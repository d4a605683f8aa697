import net from 'node:net';

/**
 * `node forward.ts <socket> <port>`: passes on what comes to a socket in the file system, which can be reached from all networks of this
 * machine, to a port on the loopback of the network that it was started in.
 */

const [socket, port] = process.argv.slice(2) as [string, string];
net
  .createServer((client) => {
    const behind = net.connect(Number(port), '127.0.0.1');
    client.on('error', () => behind.destroy());
    behind.on('error', () => client.destroy());
    client.pipe(behind).pipe(client);
  })
  .listen(socket);
