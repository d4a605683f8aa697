import { useSignal, type Signal } from '@preact/signals';
import { isRefused } from '#client';
import type { GetProfileResponse, Profile } from '#client/connectors';
import { Failure, Form, Labelled, type Action, useAction } from '../shell/components.tsx';
import { client } from '../shell/session.ts';
import { fullTime } from '../shell/times.ts';
import { Mark, Title } from './fields.tsx';
import { countOf, durationOf, numberOf } from './formats.ts';
import { Shown, useLoaded, type Loaded } from './loaded.tsx';

type Known = GetProfileResponse['profile'];

/** The networks that the console knows: no API lists them. */
const networks = [
  ['whatsapp', 'WhatsApp'],
  ['instagram', 'Instagram'],
] as const;

/** Milliseconds for which a network is down that is put down here: nobody has to remember it. */
const outage = 600_000;

interface Preset {
  title: string;
  words: string;
  profile: () => Profile;
}

const presets: readonly Preset[] = [
  { title: 'Well', words: 'Accepts everything at once.', profile: () => ({}) },
  {
    title: 'Slow',
    words: 'Two seconds for most, eight for some, and one in ten fails at first.',
    profile: () => ({ latency: { p50_ms: 2_000, p99_ms: 8_000 }, transient_errors: 0.1 }),
  },
  {
    title: 'Down',
    words: 'Out of order for ten minutes.',
    profile: () => {
      const now = Date.now();
      // A little earlier, for a hub whose clock is behind.
      return { outages: [{ from: new Date(now - 60_000).toISOString(), to: new Date(now + outage).toISOString() }] };
    },
  },
];

/** Simulated networks, for administrators: how each behaves, and how it is to. */
export function Networks() {
  return (
    <>
      <Title>Networks</Title>
      <p class="quiet">
        Simulated networks behave as they are told, so that one sees what the hub makes of a bad one. A change acts
        within a second.
      </p>
      {networks.map(([channel, title]) => (
        <Network key={channel} channel={channel} title={title} />
      ))}
    </>
  );
}

function Network({ channel, title }: { channel: string; title: string }) {
  const profile = useLoaded(async (signal): Promise<Known | null> => {
    try {
      return await client.simulation.getProfile({ channel }, { signal });
    } catch (error) {
      if (isRefused(error, 'CHANNEL_NOT_FOUND')) return null;
      throw error;
    }
  });
  return (
    <section class="panel stack" aria-label={title} data-network={channel}>
      <h3>{title}</h3>
      <Shown of={profile} what={`the profile of ${title}`}>
        {(found) =>
          found === null ? (
            <p class="quiet">It is not simulated here.</p>
          ) : (
            <Simulated channel={channel} profile={found} loaded={profile} />
          )
        }
      </Shown>
    </section>
  );
}

function Simulated({ channel, profile, loaded }: { channel: string; profile: Known; loaded: Loaded<Known | null> }) {
  const action = useAction();
  const said = useSignal('');
  const isEditing = useSignal(false);
  const change = (words: string, work: () => Promise<unknown>) =>
    action.run(async () => {
      said.value = '';
      await work();
      await loaded.load();
      said.value = words;
      isEditing.value = false;
    });
  return (
    <>
      <ul class="stack tight">
        {factsOf(profile).map(({ is, words }) => (
          <li key={words}>
            <Mark is={is}>{words}</Mark>
          </li>
        ))}
      </ul>
      <ul class="presets">
        {presets.map(({ title, words, profile: made }) => (
          <li key={title}>
            <button
              type="button"
              class="button"
              disabled={action.isRunning.value}
              onClick={() =>
                void change(`Set: ${title}.`, () =>
                  client.simulation.setProfile({ channel, profile: { ...made(), record: profile.record } }),
                )
              }
            >
              {title}
            </button>
            <span class="quiet small">{words}</span>
          </li>
        ))}
        <li>
          <button
            type="button"
            class="button"
            disabled={action.isRunning.value}
            onClick={() => void change('Set: as configured.', () => client.simulation.resetProfile({ channel }))}
          >
            As configured
          </button>
          <span class="quiet small">As the hub’s settings have it.</span>
        </li>
      </ul>
      <div class="row">
        <button
          type="button"
          class="button plain"
          aria-expanded={isEditing.value}
          onClick={() => (isEditing.value = !isEditing.value)}
        >
          By numbers
        </button>
        <span role="status" class="quiet">
          {said}
        </span>
      </div>
      {isEditing.value ? (
        <Numbers
          profile={profile}
          action={action}
          save={(wanted) =>
            void change('Saved.', () => client.simulation.setProfile({ channel, profile: { ...profile, ...wanted } }))
          }
        />
      ) : (
        <Failure of={action} />
      )}
    </>
  );
}

interface Fact {
  is: 'good' | 'warn' | 'bad' | 'quiet';
  words: string;
}

/** What a profile says, in words. */
export function factsOf(profile: Known, now = Date.now()): Fact[] {
  const { rate_limit, latency, transient_errors, lost_answers, final_errors, outages, receipts, record, exceptions } =
    profile;
  const facts: Fact[] = [];
  for (const { from, to, repeat_ms } of outages) {
    const [start, end] = [Date.parse(from), Date.parse(to)];
    if (repeat_ms > 0) {
      const words = `Out of order for ${durationOf(end - start)}, every ${durationOf(repeat_ms)}, from ${fullTime(from)} on`;
      facts.push({ is: 'warn', words });
    } else if (start <= now && now < end) facts.push({ is: 'bad', words: `Out of order until ${fullTime(to)}` });
    else if (now < start) facts.push({ is: 'warn', words: `Out of order from ${fullTime(from)} to ${fullTime(to)}` });
  }
  if (latency !== null && latency.p50_ms + latency.p99_ms > 0) {
    const slowest = latency.p99_ms > 0 ? `, one in a hundred after more than ${durationOf(latency.p99_ms)}` : '';
    facts.push({ is: 'warn', words: `Answers half of the requests within ${durationOf(latency.p50_ms)}${slowest}` });
  }
  if (rate_limit > 0) facts.push({ is: 'warn', words: `Takes ${countOf(rate_limit, 'request')} a second` });
  const shares = [
    [transient_errors, 'of the requests fail for the moment'],
    [lost_answers, 'of the answers are lost'],
    [final_errors, 'of the deliveries are refused for good'],
    [receipts?.failed ?? 0, 'of the messages fail after they were accepted'],
  ] as const;
  for (const [share, words] of shares) {
    if (share > 0) facts.push({ is: 'warn', words: `${numberOf(share * 100)} % ${words}` });
  }
  if (exceptions.length > 0) {
    const recipients = exceptions.reduce((sum, { recipients }) => sum + recipients.length, 0);
    facts.push({ is: 'warn', words: `Treats ${countOf(recipients, 'recipient')} differently` });
  }
  if (facts.length === 0) facts.push({ is: 'good', words: 'Accepts everything at once' });
  if (receipts !== null) facts.push({ is: 'quiet', words: 'Reports later what has become of a message' });
  if (record) facts.push({ is: 'quiet', words: 'Keeps what it has accepted' });
  return facts;
}

/** The numbers of a profile that are changed most often. The others stay as they are. */
function Numbers({
  profile: { rate_limit, latency, transient_errors, lost_answers, final_errors },
  action,
  save,
}: {
  profile: Known;
  action: Action;
  save: (wanted: Profile) => void;
}) {
  const rate = useSignal(String(rate_limit));
  const [half, most] = [useSignal(String(latency?.p50_ms ?? 0)), useSignal(String(latency?.p99_ms ?? 0))];
  const transient = useSignal(percentOf(transient_errors));
  const lost = useSignal(percentOf(lost_answers));
  const final = useSignal(percentOf(final_errors));
  const submit = () =>
    save({
      rate_limit: Number(rate.value),
      latency: { p50_ms: Number(half.value), p99_ms: Number(most.value) },
      transient_errors: Number(transient.value) / 100,
      lost_answers: Number(lost.value) / 100,
      final_errors: Number(final.value) / 100,
    });
  const fields = [
    'rate_limit',
    'latency',
    'latency.p50_ms',
    'latency.p99_ms',
    'transient_errors',
    'lost_answers',
    'final_errors',
  ];
  return (
    <Form class="stack" submit={submit}>
      <div class="numbers">
        <NumberField label="Requests a second" hint="0 is no limit." value={rate} wrong={action.wrong('rate_limit')} />
        <NumberField label="Half are answered within, ms" value={half} wrong={action.wrong('latency.p50_ms')} />
        <NumberField
          label="All but one in a hundred within, ms"
          hint="0: all alike."
          value={most}
          wrong={action.wrong('latency.p99_ms') ?? action.wrong('latency')}
        />
        <NumberField
          label="Fail for the moment, %"
          value={transient}
          isShare
          wrong={action.wrong('transient_errors')}
        />
        <NumberField label="Answers lost, %" value={lost} isShare wrong={action.wrong('lost_answers')} />
        <NumberField label="Refused for good, %" value={final} isShare wrong={action.wrong('final_errors')} />
      </div>
      <Failure of={action} fields={fields} />
      <div>
        <button class="button main" disabled={action.isRunning.value}>
          Save
        </button>
      </div>
    </Form>
  );
}

function percentOf(share: number): string {
  return String(Math.round(share * 10_000) / 100);
}

function NumberField({
  label,
  value,
  hint,
  wrong,
  isShare = false,
}: {
  label: string;
  value: Signal<string>;
  hint?: string;
  wrong: string | undefined;
  /** Whether it is in percent. */
  isShare?: boolean;
}) {
  return (
    <Labelled label={label} hint={hint} wrong={wrong}>
      {(attributes) => (
        <input
          {...attributes}
          class="input"
          type="number"
          min={0}
          max={isShare ? 100 : undefined}
          step={isShare ? 'any' : 1}
          required
          value={value.value}
          onInput={({ currentTarget }) => (value.value = currentTarget.value)}
        />
      )}
    </Labelled>
  );
}
