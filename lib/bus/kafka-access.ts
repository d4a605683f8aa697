import type { KafkaConfig, SASLOptions } from 'kafkajs';
import { z } from 'zod';
import { ConfigError, flag, secret, text, type Config } from '../config.ts';
import { readCertificates, readKeyPair } from '../tls.ts';

/** Settings for access to Kafka: TLS and login. */
export const kafkaAccessSettings = {
  KAFKA_TLS: flag().default(false).describe('whether Kafka is reached over TLS'),
  KAFKA_TLS_CA: text()
    .optional()
    .describe('PEM file with the authority that signed the certificates of the brokers, if it is none that Node knows'),
  KAFKA_TLS_CERT: text().optional().describe('PEM file with a certificate to show to the brokers, if they want one'),
  KAFKA_TLS_KEY: text().optional().describe('PEM file with the private key of KAFKA_TLS_CERT'),
  KAFKA_SASL_MECHANISM: z
    .enum(['plain', 'scram-sha-256', 'scram-sha-512'])
    .optional()
    .describe('how the process logs in to Kafka, if it has to (plain, scram-sha-256, scram-sha-512)'),
  KAFKA_SASL_USERNAME: text().optional().describe('the user of this process in Kafka'),
  KAFKA_SASL_PASSWORD: secret().optional().describe('the password of KAFKA_SASL_USERNAME'),
};

/** @throws ConfigError if something is missing, or files can't be used */
export function kafkaAccess(config: Config<typeof kafkaAccessSettings>): Pick<KafkaConfig, 'ssl' | 'sasl'> {
  const { KAFKA_TLS: tls, KAFKA_TLS_CA: authority } = config;
  const pair = readKeyPair({ cert: 'KAFKA_TLS_CERT', key: 'KAFKA_TLS_KEY' }, config);
  if (!tls && (authority !== undefined || pair !== undefined)) {
    throw new ConfigError(['KAFKA_TLS_CA, KAFKA_TLS_CERT and KAFKA_TLS_KEY need KAFKA_TLS=true']);
  }
  const ssl = { ...pair, ...(authority !== undefined && { ca: readCertificates('KAFKA_TLS_CA', authority) }) };
  const sasl = login(config);
  return { ...(tls && { ssl }), ...(sasl !== undefined && { sasl }) };
}

function login(config: Config<typeof kafkaAccessSettings>): SASLOptions | undefined {
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: password } = config;
  if (mechanism === undefined && username === undefined && password === undefined) return undefined;
  if (mechanism === undefined || username === undefined || password === undefined) {
    throw new ConfigError(['set all of KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, or none']);
  }
  if (mechanism === 'plain' && !config.KAFKA_TLS) {
    throw new ConfigError(['KAFKA_SASL_MECHANISM=plain shows the password to the network: it needs KAFKA_TLS=true']);
  }
  return { mechanism, username, password } as SASLOptions;
}
