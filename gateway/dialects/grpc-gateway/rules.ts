import type { RuleConventions } from '../../rules/bindings.ts';

/** HTTP rules as grpc-gateway reads them. */
export const grpcGatewayRules: RuleConventions = {
  hubOption: () => undefined,
  takesListsInPaths: true,
  takesNestedBodies: true,
  updateMask: (masks) => (masks.length === 1 ? masks[0] : undefined),
};
