import {
  getOption,
  hasOption,
  ScalarType,
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescMessage,
  type Registry,
} from '@bufbuild/protobuf';
import { fieldsAt, messageType, type Field } from '../json/schema.ts';
import { fitsText, wrappedScalars } from '../json/well-known.ts';
import { commentOf } from './comments.ts';
import { listRules, mapRules, Rules, sentences, valueRules, type FieldRules, type Schema } from './rules.ts';

/**
 * Whether a schema is for requests, which may leave fields out, for responses, which have every field, or for enveloped responses, which
 * leave out fields without a value.
 */
export type Direction = 'request' | 'response' | 'enveloped';

/** A parameter in a query: a field that isn't a message with fields of its own, however deep. */
export interface Leaf {
  /** Its name in the query: `a.b`. */
  name: string;
  /** The path of fields from the request message. */
  fields: readonly Field[];
  schema: Schema;
  description: string;
  required: boolean;
  isMap: boolean;
}

/** The maximum depth of query parameters. */
const maxDepth = 5;

/** Makes JSON schemas of messages, as the gateway reads and answers them. */
export class Schemas {
  /** The referenced messages, by their names in `#/components/schemas`. */
  readonly components: Record<string, Schema> = {};
  readonly #rules: Rules;
  readonly #example: DescExtension | undefined;
  readonly #names = new Map<string, string>();

  constructor(registry: Registry) {
    this.#rules = new Rules(registry);
    this.#example = registry.getExtension('chat4all.options.v1.example');
  }

  /** The schema of a message, by reference. */
  message(message: DescMessage, direction: Direction): Schema {
    const wellKnown = wellKnownSchema(message);
    if (wellKnown !== undefined) return wellKnown;
    const name = this.#nameOf(message, direction);
    if (this.components[name] === undefined) {
      // Reserved before its fields are described, since a message may contain itself.
      this.components[name] = {};
      Object.assign(this.components[name], this.object(message, direction));
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  /** The schema of a message itself, without some of its fields. */
  object(message: DescMessage, direction: Direction, left: ReadonlySet<string> = new Set()): Schema {
    const fields = message.fields.filter(({ name }) => !left.has(name));
    const isNeeded = {
      // In a request, the required fields.
      request: (field: DescField) => this.isRequired(field),
      // In a response, all fields but members of oneofs.
      response: (field: DescField) => field.oneof === undefined,
      enveloped: (field: DescField) => this.isRequired(field) || hasValue(field),
    };
    const required = fields.filter(isNeeded[direction]);
    return {
      type: 'object',
      ...described(commentOf(message), this.#rules.sentencesOf(message)),
      properties: Object.fromEntries(fields.map((field) => [field.name, this.field(field, direction)])),
      ...(required.length > 0 && { required: required.map(({ name }) => name) }),
    };
  }

  /** The schema of a field, with what its rules say and what is said about it. */
  field(field: DescField, direction: Direction): Schema {
    const rules = this.#rules.of(field);
    const example = this.exampleOf(field);
    return {
      ...this.#bare(field, rules, direction),
      ...described(commentOf(field), meanings(field.enum), sentences(rules.cel), bytesSentence(rules)),
      ...(example !== undefined && { examples: [example] }),
    };
  }

  isRequired(field: DescField): boolean {
    return this.#rules.of(field).required === true;
  }

  /** The example that stands at a field; undefined if there is none. */
  exampleOf(field: DescField): unknown {
    const option = this.#example;
    if (option === undefined || !hasOption(field, option)) return undefined;
    return JSON.parse(getOption(field, option) as string) as unknown;
  }

  /** An example of a message, made of those at its fields; undefined if there is none at all, though it has fields. */
  exampleOfMessage(message: DescMessage, left: ReadonlySet<string> = new Set(), depth = 0): unknown {
    if (depth > maxDepth) return undefined;
    const fields = message.fields.filter(({ name }) => !left.has(name));
    const entries = fields
      .map((field) => {
        const inner = field.fieldKind === 'message' && wellKnownSchema(field.message) === undefined;
        const own = this.exampleOf(field);
        return [field.name, own ?? (inner ? this.exampleOfMessage(field.message, new Set(), depth + 1) : undefined)];
      })
      .filter(([, value]) => value !== undefined);
    return entries.length === 0 && fields.length > 0 ? undefined : (Object.fromEntries(entries) as unknown);
  }

  /** All query parameters that a message may be given by. */
  leaves(message: DescMessage, parents: readonly DescField[] = []): Leaf[] {
    if (parents.length >= maxDepth) return [];
    return message.fields.flatMap((field) => {
      const path = [...parents, field];
      const names = path.map(({ name }) => name);
      const fields = fieldsAt(messageType(path[0]!.parent), names)!;
      const own = fields.at(-1)!;
      if (own.shape === 'single' && !fitsText(own.value)) return this.leaves(field.message!, path);
      // A list of messages has no form in a query.
      if (!fitsText(own.value)) return [];
      const { description = '', ...schema } = this.field(field, 'request');
      return [
        {
          name: names.join('.'),
          fields,
          schema,
          description: description as string,
          required: parents.every((parent) => this.isRequired(parent)) && this.isRequired(field),
          isMap: own.shape === 'map',
        },
      ];
    });
  }

  #bare(field: DescField, rules: FieldRules, direction: Direction): Schema {
    const items = rules.repeated?.items ?? {};
    const values = rules.map?.values ?? {};
    const isNeeded = rules.required === true && direction === 'request';
    switch (field.fieldKind) {
      case 'list':
        return {
          type: 'array',
          items: this.#value(field, items, direction),
          ...(isNeeded && { minItems: 1 }),
          ...listRules(rules),
        };
      case 'map':
        return {
          type: 'object',
          additionalProperties: this.#value(field, values, direction),
          ...(isNeeded && { minProperties: 1 }),
          ...mapRules(rules),
        };
      default: {
        const own = messageType(field.parent).byName.get(field.name)!;
        const isAlwaysThere = rules.required === true || own.siblings !== undefined;
        const { value } = own;
        if (direction === 'request') {
          const schema = this.#value(field, rules, direction);
          return isNeeded && own.implicit ? { ...schema, ...notZero(schema) } : schema;
        }
        // A response may have a zero that the rules of requests forbid.
        const schema = this.#value(field, rules.ignore === undefined ? rules : {}, direction);
        const unset = own.implicit ? value.kind === 'enum' && value.names.shown.get(0) === null : true;
        return unset && !isAlwaysThere && direction === 'response' ? orNull(schema) : schema;
      }
    }
  }

  /** A single value: of a field, of a list's items or of a map's values. */
  #value(field: DescField, rules: FieldRules, direction: Direction): Schema {
    if (field.message !== undefined) {
      const schema = this.message(field.message, direction);
      return '$ref' in schema ? schema : { ...schema, ...valueRules(rules) };
    }
    if (field.enum !== undefined) return enumSchema(field.enum, messageType(field.parent).byName.get(field.name)!);
    return { ...scalarSchema(field.scalar!), ...valueRules(rules) };
  }

  /** A short name, unless another message has it. */
  #nameOf(message: DescMessage, direction: Direction): string {
    const isInput = direction === 'request' && !message.name.endsWith('Request');
    const short = `${message.name}${isInput ? 'Input' : ''}`;
    const full = `${message.typeName}${isInput ? 'Input' : direction === 'enveloped' ? 'Data' : ''}`;
    const own = direction === 'enveloped' ? `${message.typeName} in an envelope` : message.typeName;
    const owner = this.#names.get(short);
    if (owner === undefined) this.#names.set(short, own);
    return owner === undefined || owner === own ? short : full;
  }
}

/** Whether a field always has a value: a list or map, and a scalar or enum whose zero is one. */
function hasValue(field: DescField): boolean {
  const { shape, implicit, value } = messageType(field.parent).byName.get(field.name)!;
  if (shape !== 'single') return true;
  return implicit && (value.kind === 'enum' ? value.names.shown.get(0) !== null : value.kind === 'scalar');
}

/** Joins the texts of a description. */
function described(...texts: (string | readonly string[])[]): Schema {
  const text = texts
    .flat()
    .filter((each) => each !== '')
    .join('\n\n');
  return text === '' ? {} : { description: text };
}

/** Describes a limit in bytes, since schemas count characters. */
function bytesSentence({ string: rule = {} }: FieldRules): string {
  return rule['max_bytes'] === undefined ? '' : `At most ${Number(rule['max_bytes'])} bytes of UTF-8.`;
}

function enumSchema(desc: DescEnum, { value }: Field): Schema {
  if (desc.typeName === 'google.protobuf.NullValue') return { type: 'null' };
  return { type: 'string', enum: value.kind === 'enum' ? [...value.names.choices] : [] };
}

/** What is said about the values of an enum, as a list. */
function meanings(desc: DescEnum | undefined): string {
  if (desc === undefined) return '';
  const short = ({ name }: { name: string }) => name.slice(desc.sharedPrefix?.length ?? 0).toLowerCase();
  return desc.values
    .filter((value) => !/(^|_)UNSPECIFIED$/.test(value.name) && commentOf(value) !== '')
    .map((value) => `- \`${short(value)}\`: ${commentOf(value)}`)
    .join('\n');
}

function notZero({ type, minLength = 0 }: Schema): Schema {
  if (type === 'string') return { minLength: Math.max(1, minLength as number) };
  if (type === 'boolean') return { const: true };
  return type === 'integer' || type === 'number' ? { not: { const: 0 } } : {};
}

function orNull(schema: Schema): Schema {
  const { type, enum: values } = schema;
  // What may be anything may be null already.
  if (Object.keys(schema).every((key) => key === 'description')) return schema;
  if (typeof type !== 'string') return { anyOf: [schema, { type: 'null' }] };
  return { ...schema, type: [type, 'null'], ...(Array.isArray(values) && { enum: [...(values as unknown[]), null] }) };
}

const int32: Schema = { type: 'integer', format: 'int32', minimum: -(2 ** 31), maximum: 2 ** 31 - 1 };
const uint32: Schema = { type: 'integer', format: 'uint32', minimum: 0, maximum: 2 ** 32 - 1 };
const int64: Schema = { type: 'integer', format: 'int64' };
const uint64: Schema = { type: 'integer', format: 'uint64', minimum: 0 };

const scalars: Readonly<Record<ScalarType, Schema>> = {
  [ScalarType.DOUBLE]: { type: 'number', format: 'double' },
  [ScalarType.FLOAT]: { type: 'number', format: 'float' },
  [ScalarType.INT64]: int64,
  [ScalarType.SINT64]: int64,
  [ScalarType.SFIXED64]: int64,
  [ScalarType.UINT64]: uint64,
  [ScalarType.FIXED64]: uint64,
  [ScalarType.INT32]: int32,
  [ScalarType.SINT32]: int32,
  [ScalarType.SFIXED32]: int32,
  [ScalarType.UINT32]: uint32,
  [ScalarType.FIXED32]: uint32,
  [ScalarType.BOOL]: { type: 'boolean' },
  [ScalarType.STRING]: { type: 'string' },
  [ScalarType.BYTES]: { type: 'string', contentEncoding: 'base64' },
};

function scalarSchema(scalar: ScalarType): Schema {
  return scalars[scalar];
}

const wellKnown: Readonly<Record<string, Schema>> = {
  Timestamp: { type: 'string', format: 'date-time' },
  Duration: { type: 'string', pattern: '^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$', examples: ['1.5s'] },
  FieldMask: { type: 'string', examples: ['name,owner.address'] },
  Struct: { type: 'object' },
  ListValue: { type: 'array', items: {} },
  Value: {},
  Any: { type: 'object', properties: { '@type': { type: 'string' } } },
};

/** The schema of a message that has a JSON form of its own; undefined if it is an object with its fields. */
function wellKnownSchema({ typeName }: DescMessage): Schema | undefined {
  const scalar = wrappedScalars.get(typeName);
  if (scalar !== undefined) return scalars[scalar];
  const [, name = ''] = /^google\.protobuf\.(\w+)$/.exec(typeName) ?? [];
  return wellKnown[name];
}
