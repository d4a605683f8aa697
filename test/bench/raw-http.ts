import { connect, type Socket } from 'node:net';

/** An answer, as far as it matters here. */
export interface RawAnswer {
  status: number;
  /** Seconds that the server asks to wait for; 0 if it doesn't. */
  retryAfter: number;
  body: string;
}

/** Fewer than systems keep for a server that is busy. */
const openedAtOnce = 50;

interface Waiting {
  resolve(answer: RawAnswer): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

/**
 * A client of HTTP/1.1 for benchmarks that takes a fraction of the CPU time of Node's own: it writes a request in one piece, has one
 * request at a time on a connection, and understands only answers with a Content-Length. A request for which no connection is free waits for one.
 */
export class RawHttp {
  readonly #host: string;
  readonly #port: number;
  readonly #most: number;
  readonly #limit: number;
  readonly #idle: Connection[] = [];
  readonly #queue: ((connection: Connection) => void)[] = [];
  #open = 0;

  /**
   * @param most connections at once
   * @param limit milliseconds that an answer may take
   */
  constructor({ hostname, port }: URL, most: number, limit: number) {
    this.#host = hostname;
    this.#port = Number(port);
    this.#most = most;
    this.#limit = limit;
  }

  /** Opens all connections, some at a time, so that requests need not wait for that. */
  async open(): Promise<void> {
    while (this.#open < this.#most) {
      const some = Array.from({ length: Math.min(openedAtOnce, this.#most - this.#open) }, () => this.#connect());
      await Promise.all(some.map(({ connected }) => connected));
      this.#idle.push(...some);
    }
  }

  /** @throws Error if there is no answer in time, or the connection is lost */
  async post(path: string, token: string, body: string): Promise<RawAnswer> {
    const head = `POST ${path} HTTP/1.1\r\nHost: ${this.#host}:${this.#port}\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n`;
    const connection = this.#idle.pop() ?? (await this.#another());
    return connection.send(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`, this.#limit);
  }

  #another(): Connection | Promise<Connection> {
    if (this.#open < this.#most) return this.#connect();
    return new Promise((resolve) => this.#queue.push(resolve));
  }

  close(): void {
    for (const each of this.#idle.splice(0)) each.end();
  }

  #connect(): Connection {
    this.#open += 1;
    const connection = new Connection(connect({ host: this.#host, port: this.#port, noDelay: true }), {
      free: () => {
        const next = this.#queue.shift();
        if (next === undefined) this.#idle.push(connection);
        else next(connection);
      },
      closed: () => {
        this.#open -= 1;
        const at = this.#idle.indexOf(connection);
        if (at !== -1) this.#idle.splice(at, 1);
        this.#queue.shift()?.(this.#connect());
      },
    });
    return connection;
  }
}

class Connection {
  /** Settles once it is there, or can't be had: then what is sent on it fails. */
  readonly connected: Promise<void>;
  readonly #socket: Socket;
  readonly #free: () => void;
  #waiting: Waiting | undefined;
  #received = '';

  constructor(socket: Socket, { free, closed }: { free: () => void; closed: () => void }) {
    this.#socket = socket;
    this.#free = free;
    this.connected = new Promise((resolve) => socket.once('connect', resolve).once('close', () => resolve()));
    // One character a byte, so that the length of a body can be told.
    socket.setEncoding('latin1');
    socket.on('data', (data: string) => this.#take(data));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => {
      closed();
      this.#fail(new Error('the connection was closed without an answer'));
    });
  }

  send(request: string, limit: number): Promise<RawAnswer> {
    if (this.#socket.destroyed) return Promise.reject(new Error('the connection is closed'));
    return new Promise((resolve, reject) => {
      const late = () => this.#socket.destroy(new Error(`no answer within ${limit / 1000} s`));
      this.#waiting = { resolve, reject, timer: setTimeout(late, limit) };
      this.#socket.write(request);
    });
  }

  end(): void {
    this.#socket.end();
  }

  #take(data: string): void {
    this.#received += data;
    const answer = readAnswer(this.#received);
    if (answer === undefined) return;
    const { end, closes, ...rest } = answer;
    this.#received = this.#received.slice(end);
    const waiting = this.#settle();
    if (closes) this.#socket.end();
    else this.#free();
    waiting?.resolve(rest);
  }

  #fail(error: Error): void {
    this.#settle()?.reject(error);
  }

  #settle(): Waiting | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    clearTimeout(waiting?.timer);
    return waiting;
  }
}

/** Reads an answer that has come, each byte a character; undefined if some of it is still to come. */
export function readAnswer(received: string): (RawAnswer & { end: number; closes: boolean }) | undefined {
  const headEnd = received.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const head = received.slice(0, headEnd);
  const field = (name: string) => new RegExp(`\r\n${name}: *([^\r]*)`, 'i').exec(head)?.[1];
  const begin = headEnd + 4;
  const end = begin + Number(field('content-length') ?? 0);
  if (received.length < end) return undefined;
  return {
    status: Number(head.slice(9, 12)),
    retryAfter: Number(field('retry-after') ?? 0),
    body: Buffer.from(received.slice(begin, end), 'latin1').toString(),
    end,
    closes: field('connection')?.toLowerCase() === 'close',
  };
}
