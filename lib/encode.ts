import { BinaryWriter } from '@bufbuild/protobuf/wire';

/** Part of a message type of ts-proto. */
interface Encoder<Message> {
  encode(message: Message, writer: BinaryWriter): BinaryWriter;
}

/** A writer whose buffer has grown as large as messages are: to let a new one grow costs as much as to write a message. */
let grown: BinaryWriter | undefined;
/** The writer of a message with more bytes than this is not kept, nor is its buffer. */
const maxKeptBytes = 64 * 1024;

/** The bytes that `write` writes. It may call this function, too. */
export function written(write: (writer: BinaryWriter) => void): Buffer {
  const writer = grown ?? new BinaryWriter();
  // One that has thrown holds half a message: it is not used again.
  grown = undefined;
  write(writer);
  const { buffer, byteOffset, byteLength } = writer.finish();
  if (byteLength <= maxKeptBytes) grown = writer;
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** A message as protobuf. */
export function encode<Message>(type: Encoder<Message>, message: Message): Buffer {
  return written((writer) => void type.encode(message, writer));
}
