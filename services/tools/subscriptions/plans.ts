import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { ConfigError } from '#lib/config.ts';
import { planNames, type Plan, type PlanName } from '../tools.ts';

/** The plans, from the smallest to the greatest. */
export type Plans = Readonly<Record<PlanName, Plan>>;

const builtIn: Plans = {
  free: {
    name: 'free',
    tokenLimit: 1_000,
    priceMonthly: 0,
    features: ['All tools', '1,000 tokens in 30 days'],
  },
  pro: {
    name: 'pro',
    tokenLimit: 50_000,
    priceMonthly: 29.99,
    features: ['All tools', '50,000 tokens in 30 days', 'API keys for programs of your own'],
  },
  enterprise: {
    name: 'enterprise',
    tokenLimit: 500_000,
    priceMonthly: 299.99,
    features: ['All tools', '500,000 tokens in 30 days', 'API keys for programs of your own', 'For whole teams'],
  },
};

const fileSchema = z.array(
  z.strictObject({
    name: z.enum(planNames),
    token_limit: z.int().min(1),
    price_monthly: z.number().min(0),
    features: z.array(z.string()),
  }),
);

/**
 * The plans in a file, or the built-in ones without one.
 *
 * @throws ConfigError if they can't be read, or aren't each of the three plans once
 */
export function readPlans(file: string | undefined): Plans {
  if (file === undefined) return builtIn;
  let plans: z.output<typeof fileSchema>;
  try {
    plans = fileSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new ConfigError([`PLANS_FILE (${file}) can't be used: ${why}`]);
  }
  const find = (name: PlanName): Plan => {
    const [found, ...more] = plans.filter((plan) => plan.name === name);
    if (found === undefined || more.length > 0) {
      throw new ConfigError([`PLANS_FILE (${file}) must have each of ${planNames.join(', ')} once`]);
    }
    const { token_limit: tokenLimit, price_monthly: priceMonthly, features } = found;
    return { name, tokenLimit, priceMonthly, features };
  };
  return { free: find('free'), pro: find('pro'), enterprise: find('enterprise') };
}
