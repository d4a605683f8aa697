import test from 'ava';
import { isUuid } from './uuid.ts';

test('isUuid: any version, in lower case and whole', (t) => {
  t.true(isUuid('0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11'));
  t.true(isUuid('00000000-0000-0000-0000-000000000000'));
  for (const text of ['', '0D9E5A3C-6A0E-4A52-8A0B-5F9A3A1F7C11', '0d9e5a3c6a0e4a528a0b5f9a3a1f7c11'])
    t.false(isUuid(text));
  t.false(isUuid('0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11\n'));
});
