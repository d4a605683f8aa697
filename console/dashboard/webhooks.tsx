import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { EventType } from '#client/events';
import type { Webhook, WebhookAttempt } from '#client/webhooks';
import { Dialog, Empty, Failure, Field, Form, useAction } from '../shell/components.tsx';
import { onEvent } from '../shell/live.ts';
import { goTo, urlOf } from '../shell/router.ts';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Confirm, Mark, Secret, Table, Title } from './fields.tsx';
import { dateOf, durationOf, wordOf } from './formats.ts';
import { Shown, useLoaded } from './loaded.tsx';

const eventTypes = Object.values(EventType);

/** `/console/dashboard/webhooks`: the URLs that one's events are sent to; `/<id>`: one of them, with what was sent. */
export function Webhooks({ path: [id] }: { path: readonly string[] }) {
  return id === undefined ? <WebhookList /> : <OneWebhook id={id} key={id} />;
}

/** Loads anew when the hub has paused a webhook by itself. */
function useNews(load: () => Promise<void>): void {
  useEffect(
    () =>
      onEvent(({ webhook_paused }) => {
        if (webhook_paused !== undefined) void load();
      }),
    [],
  );
}

function State({ of: { status, failing_since } }: { of: Webhook }) {
  if (status === 'disabled') return <Mark is="bad">Disabled: its URL is gone</Mark>;
  if (status === 'paused') return <Mark is="warn">Paused</Mark>;
  if (failing_since !== null) return <Mark is="bad">Failing since {fullTime(failing_since)}</Mark>;
  return <Mark is="good">Active</Mark>;
}

function WebhookList() {
  const webhooks = useLoaded(async (signal) => (await client.webhooks.listWebhooks({}, { signal })).webhooks);
  const isCreating = useSignal(false);
  const created = useSignal<{ id: string; secret: string } | undefined>(undefined);
  useNews(webhooks.load);
  return (
    <>
      <Title
        beside={
          <button type="button" class="button main" onClick={() => (isCreating.value = true)}>
            New webhook
          </button>
        }
      >
        Webhooks
      </Title>
      <p class="quiet">Your events, sent to a URL of yours as they happen, and signed.</p>
      <Shown of={webhooks} what="your webhooks">
        {(found) =>
          found.length === 0 ? (
            <Empty title="No webhooks">
              <p>With one, a program of yours need not ask for what is new.</p>
            </Empty>
          ) : (
            <ul class="entries">
              {found.map((webhook) => (
                <li key={webhook.webhook_id}>
                  <a class="entry" href={urlOf('dashboard', 'webhooks', webhook.webhook_id)}>
                    <strong>{webhook.url}</strong>
                    <span class="small">
                      <State of={webhook} />
                      <span class="quiet"> · {typesOf(webhook)}</span>
                    </span>
                  </a>
                </li>
              ))}
            </ul>
          )
        }
      </Shown>
      {isCreating.value && (
        <NewWebhook
          close={() => (isCreating.value = false)}
          done={(id, secret) => {
            isCreating.value = false;
            created.value = { id, secret };
            void webhooks.load();
          }}
        />
      )}
      {created.value !== undefined && (
        <Secret
          title="The secret of your webhook"
          label="Secret"
          value={created.value.secret}
          close={() => {
            const { id } = created.peek()!;
            created.value = undefined;
            goTo(urlOf('dashboard', 'webhooks', id));
          }}
        >
          <p>With it, your program finds out whether a request is the hub’s.</p>
        </Secret>
      )}
    </>
  );
}

function typesOf({ types, conversation_ids }: Webhook): string {
  const what = types.length === 0 ? 'All events' : types.map(wordOf).join(', ');
  if (conversation_ids.length === 0) return what;
  return `${what}, of ${conversation_ids.length === 1 ? 'one conversation' : `${conversation_ids.length} conversations`}`;
}

function NewWebhook({ close, done }: { close: () => void; done: (id: string, secret: string) => void }) {
  const url = useSignal('');
  const types = useSignal<readonly EventType[]>([]);
  const action = useAction();
  const submit = () =>
    action.run(async () => {
      const { webhook, secret } = await client.webhooks.createWebhook({
        url: url.value.trim(),
        types: [...types.value],
      });
      done(webhook!.webhook_id, secret);
    });
  return (
    <Dialog title="New webhook" close={close}>
      <Form submit={submit}>
        <Field
          label="URL"
          value={url}
          type="url"
          placeholder="https://example.com/hooks"
          required
          wrong={action.wrong('url')}
        />
        <fieldset class="checks">
          <legend>Events</legend>
          <p class="quiet small">If none is chosen, all are sent, those that come with a later version as well.</p>
          {eventTypes.map((type) => (
            <label key={type}>
              <input
                type="checkbox"
                checked={types.value.includes(type)}
                onChange={({ currentTarget: { checked } }) => {
                  types.value = eventTypes.filter((each) => (each === type ? checked : types.value.includes(each)));
                }}
              />
              {wordOf(type)}
            </label>
          ))}
        </fieldset>
        <Failure of={action} fields={['url']} />
        <div>
          <button class="button main" disabled={action.isRunning.value}>
            Make the webhook
          </button>
        </div>
      </Form>
    </Dialog>
  );
}

function OneWebhook({ id }: { id: string }) {
  const webhook = useLoaded(async (signal) => (await client.webhooks.getWebhook({ webhook_id: id }, { signal }))!);
  const attempts = useLoaded(async (signal) => [...(await pageOf(undefined, signal))]);
  useNews(webhook.load);
  return (
    <>
      <Title back={{ url: urlOf('dashboard', 'webhooks'), title: 'the webhooks' }}>Webhook</Title>
      <Shown of={webhook} what="the webhook">
        {(found) => (
          <>
            <dl class="facts">
              <dt>URL</dt>
              <dd>{found.url}</dd>
              <dt>State</dt>
              <dd>
                <State of={found} />
              </dd>
              <dt>Events</dt>
              <dd>{typesOf(found)}</dd>
              {found.created_at !== null && (
                <>
                  <dt>Made</dt>
                  <dd>{dateOf(found.created_at)}</dd>
                </>
              )}
              {found.old_secret_until !== null && (
                <>
                  <dt>Old secret</dt>
                  <dd>Signs as well until {fullTime(found.old_secret_until)}</dd>
                </>
              )}
            </dl>
            <Actions
              of={found}
              changed={() => {
                void webhook.load();
                void attempts.load();
              }}
            />
          </>
        )}
      </Shown>
      <section class="stack">
        <div class="row apart">
          <h3>What was sent</h3>
          <button type="button" class="button" onClick={() => void attempts.load()}>
            Refresh
          </button>
        </div>
        <Shown of={attempts} what="what was sent">
          {(found) => <Attempts key={found[0]?.attempt_id} first={found} more={(before) => pageOf(before)} />}
        </Shown>
      </section>
    </>
  );

  async function pageOf(before: string | undefined, signal?: AbortSignal): Promise<readonly WebhookAttempt[]> {
    const request = { webhook_id: id, limit: attemptsAtOnce, ...(before === undefined ? {} : { before }) };
    return (await client.webhooks.listWebhookAttempts(request, { signal })).attempts;
  }
}

const attemptsAtOnce = 20;
const outcomes = { delivered: 'Delivered', failed: 'Failed', given_up: 'Given up' };

function Attempts({
  first,
  more,
}: {
  first: readonly WebhookAttempt[];
  more: (before: string) => Promise<readonly WebhookAttempt[]>;
}) {
  const all = useSignal(first);
  const isAll = useSignal(first.length < attemptsAtOnce);
  const action = useAction();
  const load = () =>
    action.run(async () => {
      const next = await more(all.peek().at(-1)!.attempt_id);
      isAll.value = next.length < attemptsAtOnce;
      all.value = [...all.peek(), ...next];
    });
  if (first.length === 0) return <Empty title="Nothing so far" />;
  return (
    <>
      <Table label="What was sent" heads={['When', 'Event', 'Outcome', 'Answer', '#Took', 'Next attempt']}>
        {all.value.map(({ attempt_id, at, type, number, outcome, status_code, error, duration_ms, next_at }) => (
          <tr key={attempt_id}>
            <td>{at !== null && <time dateTime={at}>{fullTime(at)}</time>}</td>
            <td>
              {type}
              {number > 1 && <span class="quiet"> (attempt {number})</span>}
            </td>
            <td>
              <Mark is={outcome === 'delivered' ? 'good' : 'bad'}>{outcomes[outcome]}</Mark>
            </td>
            <td class="free">
              {status_code !== 0 && status_code}
              {error !== '' && <span class="quiet small"> {error}</span>}
            </td>
            <td class="number">{durationOf(duration_ms)}</td>
            <td>{next_at !== null && <time dateTime={next_at}>{fullTime(next_at)}</time>}</td>
          </tr>
        ))}
      </Table>
      <Failure of={action} />
      {!isAll.value && (
        <div>
          <button type="button" class="button" disabled={action.isRunning.value} onClick={() => void load()}>
            Show more
          </button>
        </div>
      )}
    </>
  );
}

function Actions({ of: webhook, changed }: { of: Webhook; changed: () => void }) {
  const { webhook_id, url, status } = webhook;
  const action = useAction();
  const ping = useSignal<WebhookAttempt | undefined>(undefined);
  const secret = useSignal<string | undefined>(undefined);
  const asked = useSignal<'delete' | 'secret' | undefined>(undefined);
  const isRunning = action.isRunning.value;
  const run = (work: () => Promise<unknown>) =>
    void action.run(async () => {
      ping.value = undefined;
      await work();
      changed();
    });
  const close = () => (asked.value = undefined);
  return (
    <>
      <div class="row">
        <button
          type="button"
          class="button"
          disabled={isRunning}
          onClick={() =>
            run(async () => (ping.value = (await client.webhooks.pingWebhook({ webhook_id })) ?? undefined))
          }
        >
          Ping
        </button>
        {status === 'active' ? (
          <button
            type="button"
            class="button"
            disabled={isRunning}
            onClick={() => run(() => client.webhooks.pauseWebhook({ webhook_id }))}
          >
            Pause
          </button>
        ) : (
          <>
            <button
              type="button"
              class="button main"
              disabled={isRunning}
              onClick={() => run(() => client.webhooks.resumeWebhook({ webhook_id }))}
            >
              Resume
            </button>
            <button
              type="button"
              class="button"
              disabled={isRunning}
              onClick={() => run(() => client.webhooks.resumeWebhook({ webhook_id, skip: true }))}
            >
              Resume without what has happened meanwhile
            </button>
          </>
        )}
        <button type="button" class="button" disabled={isRunning} onClick={() => (asked.value = 'secret')}>
          New secret
        </button>
        <button type="button" class="button danger" disabled={isRunning} onClick={() => (asked.value = 'delete')}>
          Delete
        </button>
      </div>
      <Failure of={action} />
      <div role="status">
        {ping.value !== undefined && (
          <p class={ping.value.outcome === 'delivered' ? 'notice' : 'notice bad'}>
            {ping.value.outcome === 'delivered'
              ? `The ping was answered with ${ping.value.status_code} after ${durationOf(ping.value.duration_ms)}.`
              : `The ping has failed: ${ping.value.error || `it was answered with ${ping.value.status_code}`}`}
          </p>
        )}
      </div>
      {asked.value === 'delete' && (
        <Confirm
          title="Delete the webhook?"
          verb="Delete it"
          isDangerous
          work={async () => {
            await client.webhooks.deleteWebhook({ webhook_id });
            goTo(urlOf('dashboard', 'webhooks'), { replace: true });
          }}
          close={close}
        >
          <p>Nothing more is sent to {url}, and what waits for it is forgotten.</p>
        </Confirm>
      )}
      {asked.value === 'secret' && (
        <Confirm
          title="Make a new secret?"
          verb="Make it"
          work={async () => {
            secret.value = (await client.webhooks.rotateWebhookSecret({ webhook_id })).secret;
          }}
          close={close}
        >
          <p>For 24 hours, what is sent is signed with the old one as well.</p>
        </Confirm>
      )}
      {secret.value !== undefined && (
        <Secret
          title="The new secret"
          label="Secret"
          value={secret.value}
          close={() => {
            secret.value = undefined;
            changed();
          }}
        />
      )}
    </>
  );
}
