import {
  getOption,
  hasOption,
  toJson,
  type DescExtension,
  type DescField,
  type DescMessage,
  type Registry,
} from '@bufbuild/protobuf';

/** A schema of JSON Schema 2020-12, as OpenAPI 3.1 has it. */
export type Schema = Record<string, unknown>;

/** A rule of buf.validate as ProtoJSON with proto names, in which 64-bit numbers and infinities are strings. */
type Rule = Readonly<Record<string, unknown>>;

interface Cel {
  message?: string;
}

/** buf.validate.FieldRules. */
export interface FieldRules {
  required?: boolean;
  ignore?: string;
  cel?: Cel[];
  string?: Rule;
  bytes?: Rule;
  enum?: Rule;
  repeated?: Rule & { items?: FieldRules };
  map?: Rule & { keys?: FieldRules; values?: FieldRules };
  [numbers: string]: unknown;
}

/** Reads the validation rules in protos (buf.validate) that a JSON schema can express. */
export class Rules {
  readonly #registry: Registry;
  readonly #field: DescExtension | undefined;
  readonly #message: DescExtension | undefined;
  readonly #read = new Map<DescField, FieldRules>();

  constructor(registry: Registry) {
    this.#registry = registry;
    this.#field = registry.getExtension('buf.validate.field');
    this.#message = registry.getExtension('buf.validate.message');
  }

  /** The rules of a field; none if it has none. */
  of(field: DescField): FieldRules {
    let rules = this.#read.get(field);
    if (rules === undefined) this.#read.set(field, (rules = (this.#optionOf(field, this.#field) ?? {}) as FieldRules));
    return rules;
  }

  /** The descriptions of a message's CEL rules. */
  sentencesOf(message: DescMessage): string[] {
    return sentences((this.#optionOf(message, this.#message) as { cel?: Cel[] } | undefined)?.cel);
  }

  #optionOf(desc: DescField | DescMessage, extension: DescExtension | undefined): unknown {
    if (extension?.fieldKind !== 'message' || !hasOption(desc, extension)) return undefined;
    const value = getOption(desc, extension) as Parameters<typeof toJson>[1];
    return toJson(extension.message, value, { registry: this.#registry, useProtoFieldName: true });
  }
}

/** The descriptions of CEL rules, which a schema can't express. */
export function sentences(cel: readonly Cel[] | undefined): string[] {
  return (cel ?? []).flatMap(({ message }) => (message === undefined ? [] : [`${message}.`]));
}

/** The schema keywords for the rules of a single value. */
export function valueRules(rules: FieldRules): Schema {
  if (rules.string !== undefined) return stringRules(rules.string);
  for (const type of numberTypes) {
    const rule = rules[type] as Rule | undefined;
    if (rule !== undefined) return numberRules(rule);
  }
  return {};
}

const numberTypes = ['int32', 'int64', 'uint32', 'uint64', 'sint32', 'sint64', 'fixed32', 'fixed64', 'sfixed32'].concat(
  ['sfixed64', 'float', 'double'],
);

/** Formats of JSON Schema for what buf.validate knows of strings. */
const formats: Readonly<Record<string, string>> = {
  uuid: 'uuid',
  email: 'email',
  hostname: 'hostname',
  ipv4: 'ipv4',
  ipv6: 'ipv6',
  uri: 'uri',
  uri_ref: 'uri-reference',
};

function stringRules(rule: Rule): Schema {
  const patterns: string[] = [];
  const { pattern, prefix, suffix, contains, not_contains: unwanted } = rule as Record<string, string | undefined>;
  if (pattern !== undefined) patterns.push(pattern);
  if (prefix !== undefined) patterns.push(`^${literal(prefix)}`);
  if (suffix !== undefined) patterns.push(`${literal(suffix)}$`);
  if (contains !== undefined) patterns.push(literal(contains));
  const format = Object.keys(formats).find((name) => rule[name] === true);
  return {
    ...constants(rule),
    ...(format !== undefined && { format: formats[format] }),
    // A character has 1 to 4 bytes in UTF-8, so bounds in characters only approximate those in bytes.
    ...bound('minLength', rule['len'] ?? rule['min_len'] ?? quarter(rule['len_bytes'] ?? rule['min_bytes'])),
    ...bound('maxLength', rule['len'] ?? rule['max_len'] ?? rule['len_bytes'] ?? rule['max_bytes']),
    ...allOf([...patterns.map((each) => ({ pattern: each })), ...(unwanted === undefined ? [] : [without(unwanted)])]),
  };
}

function numberRules(rule: Rule): Schema {
  return {
    ...constants(rule),
    ...bound('minimum', rule['gte']),
    ...bound('exclusiveMinimum', rule['gt']),
    ...bound('maximum', rule['lte']),
    ...bound('exclusiveMaximum', rule['lt']),
  };
}

/** The schema keywords for the rules of a list, without those of its items. */
export function listRules({ repeated = {} }: FieldRules): Schema {
  return {
    ...bound('minItems', repeated['min_items']),
    ...bound('maxItems', repeated['max_items']),
    ...(repeated['unique'] === true && { uniqueItems: true }),
  };
}

/** The schema keywords for the rules of a map, without those of its values. */
export function mapRules({ map = {} }: FieldRules): Schema {
  const keys = map.keys === undefined ? {} : valueRules(map.keys);
  return {
    ...bound('minProperties', map['min_pairs']),
    ...bound('maxProperties', map['max_pairs']),
    ...(Object.keys(keys).length > 0 && { propertyNames: keys }),
  };
}

function constants(rule: Rule): Schema {
  const { const: only, in: some, not_in: none } = rule;
  return {
    ...(only !== undefined && { const: only }),
    ...(Array.isArray(some) && some.length > 0 && { enum: some }),
    ...(Array.isArray(none) && none.length > 0 && { not: { enum: none } }),
  };
}

function bound(keyword: string, value: unknown): Schema {
  const number = Number(value);
  return value === undefined || !Number.isFinite(number) ? {} : { [keyword]: number };
}

function quarter(bytes: unknown): number | undefined {
  return bytes === undefined ? undefined : Math.ceil(Number(bytes) / 4);
}

function without(text: string): Schema {
  // Of a single character there is a pattern that everyone understands.
  return text.length === 1 ? { pattern: `^[^${escaped(text)}]*$` } : { not: { pattern: literal(text) } };
}

function literal(text: string): string {
  return text.replaceAll(/./gsu, escaped);
}

function escaped(character: string): string {
  if (/[\p{Cc}]/u.test(character)) return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return /[\\^$.*+?()[\]{}|/-]/.test(character) ? `\\${character}` : character;
}

function allOf(schemas: readonly Schema[]): Schema {
  return schemas.length > 1 ? { allOf: schemas } : (schemas[0] ?? {});
}
