import { useSignal } from '@preact/signals';
import type { Plan, Subscription } from '#client/tools';
import { urlOf } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { Confirm, Mark, Title } from './fields.tsx';
import { countOf, dateOf, numberOf, priceOf, wordOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';

/** The subscription; null for somebody who never had one. */
export async function findSubscription(signal: AbortSignal): Promise<Subscription | null> {
  const [subscription] = await client.subscription.listSubscriptions({}, { signal });
  return subscription ?? null;
}

/** What is left of the plan. */
export function PlanMeter({
  subscription,
  isElsewhere = false,
}: {
  subscription: Subscription | null;
  /** Whether it is shown in another view than the one with the plans. */
  isElsewhere?: boolean;
}) {
  const link = isElsewhere && <a href={urlOf('dashboard', 'plan')}>Plans</a>;
  if (subscription === null) {
    return (
      <p class="row apart">
        <span>You have no plan so far. It takes one to use the tools.</span>
        {link}
      </p>
    );
  }
  const { plan, tokens_used, tokens_remaining, token_limit } = subscription;
  return (
    <div class="stack tight">
      <p class="row apart">
        <span>
          <strong>{wordOf(plan)}</strong> <State of={subscription} />
        </span>
        {link}
      </p>
      <meter
        aria-label="Tokens used"
        min={0}
        max={token_limit}
        high={token_limit * 0.8}
        optimum={0}
        value={Math.min(tokens_used, token_limit)}
      />
      <p class="row apart quiet small">
        <span>
          {numberOf(tokens_used)} of {countOf(token_limit, 'token')} used
        </span>
        <span>
          {numberOf(tokens_remaining)} left
          {subscription.status === 'active' && ` until ${dateOf(subscription.period_end)}`}
        </span>
      </p>
    </div>
  );
}

function State({ of: { status, expires_at } }: { of: Subscription }) {
  if (status === 'active') return <Mark is="good">Active</Mark>;
  if (status === 'expired') return <Mark is="bad">Expired</Mark>;
  return <Mark is="warn">Cancelled{expires_at !== undefined && `: it ends on ${dateOf(expires_at)}`}</Mark>;
}

/** The plan that one has, and those that one may have. */
export function PlanView() {
  const plans = useLoaded((signal) => client.subscription.listPlans({}, { signal }));
  const subscription = useLoaded((signal) => findSubscription(signal));
  const wanted = useSignal<Plan | undefined>(undefined);
  const isCancelling = useSignal(false);
  const said = useSignal('');
  const current = subscription.value.value ?? null;
  const isUsable = current !== null && current.status !== 'expired';
  const subscribe = async ({ name }: Plan) => {
    await client.subscription.subscribe({ plan: name });
    said.value = `You have the plan ${wordOf(name)} now.`;
    await subscription.load();
  };
  const cancel = async () => {
    const { expires_at } = await client.subscription.cancelSubscription();
    said.value = `The plan is cancelled${expires_at === undefined ? '' : `, and can be used until ${dateOf(expires_at)}`}.`;
    await subscription.load();
  };
  return (
    <>
      <Title>Plan</Title>
      <p role="status" class={said.value === '' ? 'hidden-text' : 'notice'}>
        {said}
      </p>
      <Shown of={subscription} what="your plan">
        {(found) => (
          <section class="panel stack" aria-label="Your plan">
            {found === null ? (
              <p>You have no plan so far. It takes one to use the tools.</p>
            ) : (
              <PlanMeter subscription={found} />
            )}
            {found?.status === 'active' && (
              <div>
                <button type="button" class="button" onClick={() => (isCancelling.value = true)}>
                  Cancel the plan
                </button>
              </div>
            )}
          </section>
        )}
      </Shown>
      <Shown of={plans} what="the plans">
        {(found) => (
          <ul class="plans">
            {found.map((plan) => {
              const isCurrent = isUsable && current.plan === plan.name;
              return (
                <li key={plan.name} class={isCurrent ? 'panel stack current' : 'panel stack'} data-plan={plan.name}>
                  <div>
                    <h3>{wordOf(plan.name)}</h3>
                    <p>
                      <span class="price">{priceOf(plan.price_monthly)}</span> <span class="quiet">a month</span>
                    </p>
                  </div>
                  <p>{countOf(plan.token_limit, 'token')} in each period</p>
                  {plan.features.length > 0 && (
                    <ul class="features">
                      {plan.features.map((feature) => (
                        <li key={feature}>{feature}</li>
                      ))}
                    </ul>
                  )}
                  <div class="end">
                    {isCurrent && current.status === 'active' ? (
                      <Mark is="good">Your plan</Mark>
                    ) : (
                      <button
                        type="button"
                        class="button"
                        disabled={subscription.value.value === undefined}
                        onClick={() => (wanted.value = plan)}
                      >
                        {isCurrent ? 'Keep' : 'Choose'} {wordOf(plan.name)}
                      </button>
                    )}
                  </div>
                </li>
              );
            })}
          </ul>
        )}
      </Shown>
      {wanted.value !== undefined && (
        <Confirm
          title={`${isUsable && current.plan === wanted.value.name ? 'Keep' : 'Choose'} ${wordOf(wanted.value.name)}?`}
          verb={`Take ${wordOf(wanted.value.name)}`}
          work={() => subscribe(wanted.peek()!)}
          close={() => (wanted.value = undefined)}
        >
          <p>
            It costs {priceOf(wanted.value.price_monthly)} a month, and acts at once:{' '}
            {countOf(wanted.value.token_limit, 'token')} in each period.
            {isUsable && ` The ${countOf(current.tokens_used, 'token')} of this period stay counted.`}
          </p>
          {isUsable && current.tokens_used >= wanted.value.token_limit && (
            <p class="notice warn">You have used more than that already: nothing is left until the period ends.</p>
          )}
        </Confirm>
      )}
      {isCancelling.value && current !== null && (
        <Confirm
          title={`Cancel ${wordOf(current.plan)}?`}
          verb="Cancel it"
          isDangerous
          work={cancel}
          close={() => (isCancelling.value = false)}
        >
          <p>
            It can be used until {dateOf(current.period_end)}. After that the tools take no calls of yours, until you
            choose a plan again.
          </p>
        </Confirm>
      )}
    </>
  );
}
