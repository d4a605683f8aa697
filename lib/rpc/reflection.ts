import { toBinary, type DescFile } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { status, type ServerDuplexStream } from '@grpc/grpc-js';
import {
  ServerReflectionService,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '#gen/grpc/reflection/v1/reflection.ts';
import { ServerReflectionService as ServerReflectionServiceAlpha } from '#gen/grpc/reflection/v1alpha/reflection.ts';
import { registry } from './schema.ts';

/** Both versions of the reflection service: older tools ask for the older one, which has the same messages. */
export const reflectionServices = [ServerReflectionService, ServerReflectionServiceAlpha];

export const channelzService = 'grpc.channelz.v1.Channelz';

/** The services that every server has beside its own. */
export const ownServices = [
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
];

/**
 * gRPC server reflection (github.com/grpc/grpc/blob/master/doc/server-reflection.md) over the project's descriptors.
 * Own code, since @grpc/reflection fails on well-known types.
 */
export function reflectionHandler(services: readonly string[]) {
  return {
    serverReflectionInfo(call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>) {
      call.on('data', (request: ServerReflectionRequest) => {
        const messageResponse = answer(request, services);
        // Backpressure: a client that doesn't read the answers is not read from.
        if (!call.write({ validHost: request.host, originalRequest: request, messageResponse })) call.pause();
      });
      call.on('drain', () => call.resume());
      call.on('end', () => call.end());
      call.on('error', () => call.end());
    },
  };
}

function answer(
  request: ServerReflectionRequest,
  services: readonly string[],
): ServerReflectionResponse['messageResponse'] {
  const asked = request.messageRequest;
  switch (asked?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: services.map((name) => ({ name })) } };
    case 'fileByFilename':
      return described(registry.getFile(asked.value.replace(/\.proto$/, '')) ?? registry.getFile(asked.value));
    case 'fileContainingSymbol':
      return described(fileOf(asked.value));
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = asked.value;
      return described(extensionsOf(containingType).find((found) => found.number === extensionNumber)?.file);
    }
    case 'allExtensionNumbersOfType':
      return {
        $case: 'allExtensionNumbersResponse',
        value: {
          baseTypeName: asked.value,
          extensionNumber: extensionsOf(asked.value).map((found) => found.number),
        },
      };
    default:
      return failure(status.INVALID_ARGUMENT, 'The request asks for nothing');
  }
}

/** The file that defines a message, enum, extension or service, or the RPC or field of one. */
function fileOf(symbol: string): DescFile | undefined {
  const owner = symbol.slice(0, symbol.lastIndexOf('.'));
  return (registry.get(symbol) ?? registry.get(owner))?.file;
}

function extensionsOf(typeName: string) {
  return [...registry]
    .filter((type) => type.kind === 'extension')
    .filter((type) => type.extendee.typeName === typeName);
}

/** A file with all its imports, itself first. */
function described(file: DescFile | undefined): ServerReflectionResponse['messageResponse'] {
  if (file === undefined) return failure(status.NOT_FOUND, 'There is no such symbol');
  const found = new Set<DescFile>();
  const collect = (each: DescFile) => {
    if (found.has(each)) return;
    found.add(each);
    each.dependencies.forEach(collect);
  };
  collect(file);
  return {
    $case: 'fileDescriptorResponse',
    value: {
      fileDescriptorProto: [...found].map((each) => Buffer.from(toBinary(FileDescriptorProtoSchema, each.proto))),
    },
  };
}

function failure(errorCode: number, errorMessage: string): ServerReflectionResponse['messageResponse'] {
  return { $case: 'errorResponse', value: { errorCode, errorMessage } };
}
