import { ScalarType } from '@bufbuild/protobuf';
import { ignored, type JsonReader } from '../../json/request-json.ts';
import { enumFromJson, scalarFromJson } from '../../json/scalars.ts';
import { wellKnownTypes } from '../../json/well-known.ts';
import { bytesFromText, mapKeyFromText, wellKnownFromJson } from './text.ts';

/** Reads JSON to the letter, as Go's protojson does. */
export const grpcGatewayJsonReader: JsonReader = {
  scalar: ({ scalar }, json) =>
    scalar === ScalarType.BYTES && typeof json === 'string' ? bytesFromText(json) : scalarFromJson(scalar, json),
  enumValue(names, json) {
    // An unknown name counts as an unknown field.
    if (typeof json === 'string') return names.exact.get(json) ?? ignored;
    return enumFromJson(names, json);
  },
  wellKnown: ({ message: { typeName } }, json) =>
    wellKnownFromJson(typeName, json) ?? wellKnownTypes.get(typeName)?.fromJson(json),
  mapKey: mapKeyFromText,
  takesSingleItem: false,
  takesRepeatedKey: false,
  takesUntypedAny: true,
  keepsSpellings: false,
};
