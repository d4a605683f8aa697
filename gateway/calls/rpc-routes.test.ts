import { readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Type,
  FileDescriptorSetSchema,
  type DescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorSet,
  type MethodDescriptorProto,
} from '@bufbuild/protobuf/wkt';
import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { openTransport, transportSettings } from '#lib/rpc/transport.ts';
import { descriptorSet } from '../../test/echo-backend.ts';
import { Admission } from '../http/admission.ts';
import { Backends } from '../grpc/backends.ts';
import { readRoutes } from '../rules/bindings.ts';
import { hubRules } from '../dialects/hub/rules.ts';
import { hubDialect } from '../dialects/hub/dialect.ts';
import { RouteError } from '../rules/path-template.ts';
import { RouteTable } from '../dialects/hub/route-table.ts';
import { maxUploadMs, rpcRoutes } from './rpc-routes.ts';

const limits = {
  timeout: 10_000,
  bodyLimit: 1_024,
  bodyTimeout: 10_000,
  floor: { window: 1_000, rate: 1 },
  silence: 1_000,
  downloadIdle: 1_000,
  heartbeat: 1_000,
};

/** Makes the routes of the test services, after a change to their descriptors. */
function routes(change: (set: FileDescriptorSet) => void) {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet));
  change(set);
  const registry = createFileRegistry(set);
  const bindings = readRoutes(registry, (service) => service.startsWith('transcoding.'), hubRules);
  // Nothing is connected before it is called.
  const backends = new Backends(
    [{ prefix: 'transcoding.v1', address: '127.0.0.1:1' }],
    openTransport(loadConfig(transportSettings, {})),
  );
  const log = openLog({ name: 'gateway', format: 'json', level: 'silent' });
  const admission = new Admission({ places: 10, bodyLimit: limits.bodyLimit, clientOf: () => 'all', log });
  const table = new RouteTable(rpcRoutes(bindings, registry, backends, limits, admission, hubDialect(registry)));
  backends.close();
  return { bindings, table };
}

function fileOf(set: FileDescriptorSet) {
  const file = set.file.find(({ name }) => name === 'transcoding/v1/raw.proto');
  if (file === undefined) throw new Error('There are no test services');
  return file;
}

function field(set: FileDescriptorSet, message: string, name: string): FieldDescriptorProto {
  const type = fileOf(set).messageType.find((candidate) => candidate.name === message) as DescriptorProto;
  return type.field.find((candidate) => candidate.name === name) as FieldDescriptorProto;
}

function method(set: FileDescriptorSet, service: string, name: string): MethodDescriptorProto {
  const found = fileOf(set).service.find((candidate) => candidate.name === service);
  return found?.method.find((candidate) => candidate.name === name) as MethodDescriptorProto;
}

test('routes: an upload and the RPC that takes JSON at its path are one route', (t) => {
  const { bindings, table } = routes(() => {});
  t.is(bindings.filter(({ template }) => template.text === '/v1/raw/upload').length, 3);
  t.is(table.find('PATCH', '/v1/raw/upload').kind, 'found');
});

test('routes: the longest upload is the longest that a body may take', (t) => {
  const { bindings } = routes(() => {});
  t.is(maxUploadMs(bindings, limits), 60_000);
  t.is(maxUploadMs([], limits), 10_000);
});

test('routes: what else is at the path of an upload is ambiguous', (t) => {
  const ambiguous = { instanceOf: RouteError, message: /PATCH \/v1\/raw\/upload/ };
  const second = (set: FileDescriptorSet, name: string, like: string) => {
    method(set, 'RawService', name).options = method(set, 'RawService', like).options;
  };
  t.throws(() => routes((set) => second(set, 'Replace', 'Receive')), ambiguous);
  t.throws(() => routes((set) => second(set, 'Describe', 'Ask')), ambiguous);
});

for (const [what, change] of [
  ['of no bytes', (set) => (field(set, 'RawPiece', 'data').type = FieldDescriptorProto_Type.STRING)],
  ['that is no field', (set) => (field(set, 'RawContent', 'data').name = 'content')],
  ['with a header for no field', (set) => (field(set, 'RawPiece', 'digest').name = 'sum')],
  ['with a header for a message', (set) => (field(set, 'RawContent', 'length').typeName = '.transcoding.v1.Nested')],
  ['of a unary RPC', (set) => (method(set, 'RawService', 'Receive').clientStreaming = false)],
  ['of an RPC that streams both ways', (set) => (method(set, 'RawService', 'Send').clientStreaming = true)],
] as [string, (set: FileDescriptorSet) => void][]) {
  test(`routes: a raw body ${what} is refused at the start`, (t) => {
    t.throws(() => routes(change), { instanceOf: RouteError, message: /^The HTTP rule of transcoding\.v1\./ });
  });
}
