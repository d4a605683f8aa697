import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { Admission } from './admission.ts';
import { readBody } from './request-body.ts';
import { sendWhole } from './lingering-close.ts';

const limits = { bodyLimit: 1_000, bodyTimeout: 5_000, floor: { rate: 1, window: 5_000 } };

/** A server that answers each body with itself in capital letters. @returns how to talk to it, and what became of its requests */
async function open(t: ExecutionContext) {
  const requests: IncomingMessage[] = [];
  let waited = 0;
  const admission: Pick<Admission, 'body'> = {
    body() {
      waited += 1;
      return { grow() {}, end() {} };
    },
  };
  const server = createServer((request, response) => {
    requests.push(request);
    readBody(request, response, { ...limits, admission: admission as Admission }).then(
      (body) => sendWhole(response, 200, { 'Content-Length': body.length }, body.toString().toUpperCase()),
      (problem: { status: number }) => sendWhole(response, problem.status, { 'Content-Length': 0 }),
    );
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.teardown(() => {
    socket.destroy();
    server.close();
  });
  const answers = socket.setEncoding('latin1')[Symbol.asyncIterator]() as AsyncIterator<string>;
  return {
    requests,
    waited: () => waited,
    write: (text: string) => void socket.write(text),
    async answer(): Promise<string> {
      const { value } = await answers.next();
      return value as string;
    },
  };
}

const head = (length: number) => `POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: ${length}\r\n\r\n`;

test('a body that comes with its head is read without a place to wait in, and the connection goes on', async (t) => {
  const { write, answer, waited, requests } = await open(t);
  for (const text of ['first', '', 'second']) {
    write(head(text.length) + text);
    const answered = await answer();
    t.true(answered.endsWith(`\r\n\r\n${text.toUpperCase()}`), answered);
    t.notRegex(answered, /connection: close/i);
  }
  t.is(waited(), 0);
  t.true(requests.every(({ readableEnded }) => readableEnded));
});

test('two requests in one packet are both answered, with their own bodies', async (t) => {
  const { write, answer, waited } = await open(t);
  write(`${head(3)}one${head(3)}two`);
  let answered = '';
  while (!answered.includes('TWO')) answered += await answer();
  t.true(answered.indexOf('ONE') < answered.indexOf('TWO'));
  t.is(waited(), 0);
});

test('a body of which a part is to come is waited for', async (t) => {
  const { write, answer, waited } = await open(t);
  write(`${head(10)}first`);
  await sleep(50);
  write('later');
  t.true((await answer()).endsWith('\r\n\r\nFIRSTLATER'));
  t.is(waited(), 1);
});

test('chunks are waited for up to the last one', async (t) => {
  const { write, answer, waited } = await open(t);
  write('POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n');
  await sleep(50);
  write('0\r\n\r\n');
  t.true((await answer()).endsWith('\r\n\r\nFIRST'));
  t.is(waited(), 1);
});

test('a body over the limit is refused, however it comes', async (t) => {
  const whole = await open(t);
  whole.write(head(1_001) + 'x'.repeat(1_001));
  t.regex(await whole.answer(), /^HTTP\/1.1 413 /);
  const chunked = await open(t);
  chunked.write(
    `POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n${'x'.repeat(1_001)}\r\n0\r\n\r\n`,
  );
  t.regex(await chunked.answer(), /^HTTP\/1.1 413 /);
});
