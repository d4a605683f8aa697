import {
  Profile as ProfileMessage,
  Treatment as TreatmentMessage,
  type Effect as EffectMessage,
} from '#gen/chat4all/connectors/v1/connectors.ts';
import { encodeJson } from '#lib/rpc/schema.ts';
import { connectorName } from '../connector.ts';
import type { Latency, Profile, Treatment } from './profile.ts';
import type { Effect } from './store.ts';

export function profileOf(message: ProfileMessage): Profile {
  const { receipts, outages, record } = message;
  return {
    rateLimit: message.rateLimit,
    latency: latencyOf(message.latency),
    transientErrors: message.transientErrors,
    lostAnswers: message.lostAnswers,
    finalErrors: message.finalErrors,
    outages: outages.map(({ from, to, repeatMs }) => ({ from: +from!, to: +to!, repeat: repeatMs })),
    receipts:
      receipts === undefined
        ? null
        : {
            delay: latencyOf(receipts.delay),
            failed: receipts.failed,
            duplicates: receipts.duplicates,
            outOfOrder: receipts.outOfOrder,
            late: receipts.late,
            lateBy: receipts.lateMs,
          },
    record,
    exceptions: message.exceptions.map(({ recipients, treatment }) => ({
      recipientIds: recipients,
      treatment: treatmentNames[treatment as keyof typeof treatmentNames],
    })),
  };
}

const treatmentNames = {
  [TreatmentMessage.TREATMENT_THROTTLED]: 'throttled',
  [TreatmentMessage.TREATMENT_OUT_OF_ORDER]: 'out_of_order',
  [TreatmentMessage.TREATMENT_SILENT]: 'silent',
} as const;

const treatmentNumbers: Record<Treatment, TreatmentMessage> = {
  throttled: TreatmentMessage.TREATMENT_THROTTLED,
  out_of_order: TreatmentMessage.TREATMENT_OUT_OF_ORDER,
  silent: TreatmentMessage.TREATMENT_SILENT,
};

export function profileMessageOf(profile: Profile): ProfileMessage {
  const { receipts, latency, outages } = profile;
  return {
    rateLimit: profile.rateLimit,
    latency: { p50Ms: latency.p50, p99Ms: latency.p99 },
    transientErrors: profile.transientErrors,
    lostAnswers: profile.lostAnswers,
    finalErrors: profile.finalErrors,
    outages: outages.map(({ from, to, repeat }) => ({ from: new Date(from), to: new Date(to), repeatMs: repeat })),
    receipts:
      receipts === null
        ? undefined
        : {
            delay: { p50Ms: receipts.delay.p50, p99Ms: receipts.delay.p99 },
            failed: receipts.failed,
            duplicates: receipts.duplicates,
            outOfOrder: receipts.outOfOrder,
            late: receipts.late,
            lateMs: receipts.lateBy,
          },
    record: profile.record,
    exceptions: profile.exceptions.map(({ recipientIds, treatment }) => ({
      recipients: [...recipientIds],
      treatment: treatmentNumbers[treatment],
    })),
  };
}

function latencyOf(latency: { p50Ms: number; p99Ms: number } | undefined): Latency {
  return { p50: latency?.p50Ms ?? 0, p99: latency?.p99Ms ?? 0 };
}

/**
 * Profiles by channel from the JSON of an object, each profile as `SetProfile` takes it.
 *
 * @throws Error that says for people what is wrong, and where
 */
export function readProfiles(text: string): Map<string, Profile> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error('must be JSON');
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new Error('must be a JSON object, with a profile for each channel');
  }
  return new Map(
    Object.entries(json).map(([channel, given]) => {
      if (!connectorName.test(channel)) throw new Error(`names ${JSON.stringify(channel)}, which is no channel`);
      try {
        const profile = profileOf(ProfileMessage.decode(encodeJson('chat4all.connectors.v1.Profile', given)));
        return [channel, profile];
      } catch (error) {
        throw new Error(`for ${channel}: ${(error as Error).message}`, { cause: error });
      }
    }),
  );
}

export function effectMessageOf({ recipientId, ...effect }: Effect): EffectMessage {
  return { ...effect, recipient: recipientId };
}
