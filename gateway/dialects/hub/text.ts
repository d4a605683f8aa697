import { enumFromJson, limited, scalarFromText } from '../../json/scalars.ts';
import type { ValueType } from '../../json/schema.ts';
import { wellKnownTypes } from '../../json/well-known.ts';

/** A single value from a query parameter or a path; undefined if it can't be given as text. */
export function valueFromText(type: ValueType, text: string): unknown {
  if (type.kind === 'scalar') return limited(type.limits, text, scalarFromText(type.scalar, text));
  if (type.kind === 'enum') return enumFromJson(type.names, text);
  return limited(type.limits, text, wellKnownTypes.get(type.message.typeName)?.fromText(text));
}
