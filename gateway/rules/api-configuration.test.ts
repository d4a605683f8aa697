import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readApiConfiguration } from './api-configuration.ts';

async function written(t: ExecutionContext, text: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'rules.yaml');
  await writeFile(file, text);
  return file;
}

test('API configuration: rules of all forms are read, in YAML and in JSON', async (t) => {
  const rules = {
    http: {
      rules: [
        {
          selector: 'a.B.C',
          post: '/v1/c',
          body: '*',
          additional_bindings: [{ get: '/v1/c/{id}', response_body: 'name' }],
        },
        { selector: 'a.B.C', custom: { kind: 'LOCK', path: '/v1/c' } },
      ],
    },
  };
  const yaml = `type: google.api.Service
config_version: 3
http:
  rules:
    - selector: a.B.C
      post: /v1/c
      body: "*"
      additional_bindings:
        - get: "/v1/c/{id}"
          response_body: name
    - selector: a.B.C
      custom: { kind: LOCK, path: /v1/c }
`;
  const expected = [
    {
      pattern: { case: 'post', value: '/v1/c' },
      body: '*',
      responseBody: '',
      additionalBindings: [
        { pattern: { case: 'get', value: '/v1/c/{id}' }, body: '', responseBody: 'name', additionalBindings: [] },
      ],
    },
    {
      pattern: { case: 'custom', value: { kind: 'LOCK', path: '/v1/c' } },
      body: '',
      responseBody: '',
      additionalBindings: [],
    },
  ];
  for (const text of [yaml, JSON.stringify(rules)]) {
    t.deepEqual(readApiConfiguration(await written(t, text)), new Map([['a.B.C', expected]]));
  }
});

for (const [what, text, said] of [
  ['no YAML', 'a: [', /rules\.yaml is no gRPC API Configuration/],
  ['no rules', 'type: google.api.Service', /it has no http\.rules/],
  ['a rule without a method', 'http: {rules: [{get: /a}]}', /the rule 1 has no selector/],
  ['a member that no rule has', 'http: {rules: [{selector: a.B.C, got: /a}]}', /the rule of a\.B\.C has got/],
  ['a path that is no text', 'http: {rules: [{selector: a.B.C, get: 5}]}', /has get that is no text/],
  ['a custom pattern without a path', 'http: {rules: [{selector: a.B.C, custom: {kind: A}}]}', /without kind or path/],
  ['bindings that are no list', 'http: {rules: [{selector: a.B.C, additional_bindings: 1}]}', /that are no list/],
] as const) {
  test(`API configuration: one with ${what} is refused`, async (t) => {
    const file = await written(t, text);
    t.throws(() => readApiConfiguration(file), { name: 'ConfigError', message: said });
  });
}
