import test from 'ava';
import { registry } from '#lib/rpc/schema.ts';
import { limitsOf } from './number-limits.ts';
import { limited, scalarFromJson, scalarFromText } from './scalars.ts';
import { Fault } from './schema.ts';

const fieldOf = (message: string, name: string) =>
  registry.getMessage(message)!.fields.find((field) => field.name === name)!;
const list = 'chat4all.message.v1.ListMessagesRequest';
const offset = limitsOf(fieldOf(list, 'offset'));
const limit = limitsOf(fieldOf(list, 'limit'));

test('limits: those of numbers are what their proto says', (t) => {
  t.deepEqual(offset, { least: 0n, most: undefined, isOf32: true });
  t.deepEqual(limit, { least: 1n, most: 100n, isOf32: false });
  t.deepEqual(limitsOf(fieldOf(list, 'after_seq')), { least: 0n, most: undefined, isOf32: false });
  t.is(limitsOf(fieldOf(list, 'conversation_id')), undefined);
  t.is(limitsOf(fieldOf(list, 'order')), undefined);
});

const int32 = 5;

test('limits: a number of 32 bits that only has to be at least something takes every larger number of JSON, as its largest', (t) => {
  for (const given of [2 ** 31, 2 ** 53, 1e300, 9_007_199_254_740_993n, '2147483648', '1e15']) {
    const read = typeof given === 'string' ? scalarFromText(int32, given) : scalarFromJson(int32, given);
    t.is(limited(offset, given, read), 2 ** 31 - 1, String(given));
  }
  t.is(limited(offset, 7, scalarFromJson(int32, 7)), 7);
});

test('limits: what is wrong is told with the limits of the field, never with those of its type', (t) => {
  const told = (limits: typeof offset, given: unknown) => {
    const value = limited(limits, given, scalarFromJson(int32, given));
    return value instanceof Fault ? value.description : value;
  };
  for (const given of ['x', 1.5, null, true, -(2 ** 31) - 1]) {
    t.is(told(offset, given), 'must be a whole number of at least 0', String(given));
    t.is(told(limit, given), 'must be a whole number from 1 to 100', String(given));
  }
  t.is(told(limit, 2 ** 31), 'must be a whole number from 1 to 100');
  t.is(told(undefined, 'x'), 'must be a whole number');
  t.is(told(undefined, 2 ** 31), 'must be at most 2147483647');
});
