import { getOption, ScalarType, type DescField } from '@bufbuild/protobuf';

/** What the rules in a proto (buf.validate) let a whole number be. */
export interface Limits {
  least: bigint | undefined;
  most: bigint | undefined;
  /** Whether it is a field of 32 bits, with a sign. */
  isOf32: boolean;
}

interface NumberRules {
  greaterThan?: { case?: 'gt' | 'gte'; value?: number | bigint };
  lessThan?: { case?: 'lt' | 'lte'; value?: number | bigint };
}
interface TypedRules {
  type?: { case?: string; value?: NumberRules & { items?: TypedRules } };
}

/** The limits of a whole number, or of those in a list; undefined if the proto sets none. */
export function limitsOf(field: DescField): Limits | undefined {
  const validate = field.parent.file.dependencies.find(({ name }) => name === 'buf/validate/validate');
  const rules = validate?.extensions.find(({ typeName }) => typeName === 'buf.validate.field');
  if (rules === undefined) return undefined;
  const { type } = getOption(field, rules) as unknown as TypedRules;
  const of = type?.case === 'repeated' ? type.value?.items?.type : type;
  if (of?.value === undefined || !/int|fixed/.test(of.case ?? '')) return undefined;
  const { greaterThan: above, lessThan: below } = of.value;
  const bound = (value: number | bigint | undefined, exclusive: boolean, step: bigint) =>
    value === undefined ? undefined : BigInt(value) + (exclusive ? step : 0n);
  const limits = {
    least: bound(above?.value, above?.case === 'gt', 1n),
    most: bound(below?.value, below?.case === 'lt', -1n),
    isOf32: field.fieldKind === 'scalar' && field.scalar === ScalarType.INT32,
  };
  return limits.least === undefined && limits.most === undefined ? undefined : limits;
}
