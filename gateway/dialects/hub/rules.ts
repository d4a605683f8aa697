import type { RuleConventions } from '../../rules/bindings.ts';

/** HTTP rules as the hub reads them, with the options of chat4all.options.v1. */
export const hubRules: RuleConventions = {
  hubOption: (registry, name) => registry.getExtension(`chat4all.options.v1.${name}`),
  takesListsInPaths: false,
  takesNestedBodies: false,
  // The one that is called update_mask, or else the only one.
  updateMask: (masks) =>
    masks.find(({ name }) => name === 'update_mask') ?? (masks.length === 1 ? masks[0] : undefined),
};
