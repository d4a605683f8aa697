import type { JsonReader } from '../../json/request-json.ts';
import { enumFromJson, limited, scalarFromJson, scalarFromText } from '../../json/scalars.ts';
import type { Fault } from '../../json/schema.ts';
import { wellKnownTypes } from '../../json/well-known.ts';

/** Reads JSON with leniency: a single value for a list, enums by short name in any case, base64 however it is padded. */
export const hubJsonReader: JsonReader = {
  scalar: ({ scalar, limits }, json) => limited(limits, json, scalarFromJson(scalar, json)),
  enumValue: enumFromJson,
  wellKnown: ({ message, limits }, json) =>
    // Only a scalar becomes a number here.
    limited(limits, json, wellKnownTypes.get(message.typeName)?.fromJson(json)) as Uint8Array | Fault | undefined,
  mapKey: scalarFromText,
  takesSingleItem: true,
  takesRepeatedKey: true,
  takesUntypedAny: false,
  keepsSpellings: true,
};
