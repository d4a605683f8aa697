import test from 'ava';
import { createAuthority, writeCertificates } from '../../test/certificates.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { ConfigError, loadConfig } from '../config.ts';
import { kafkaAccess, kafkaAccessSettings } from './kafka-access.ts';

const folder = openedFolder('chat4all-kafka-tls-');
const authority = createAuthority('brokers');
const files = opened(() => writeCertificates(folder, 'KAFKA_TLS', authority.issue(['localhost']), authority));

const access = (env: NodeJS.ProcessEnv) => kafkaAccess(loadConfig(kafkaAccessSettings, env));
const password = 'NkTe3-PdRbB7-xGzuQ';
const login = { KAFKA_SASL_MECHANISM: 'scram-sha-512', KAFKA_SASL_USERNAME: 'hub', KAFKA_SASL_PASSWORD: password };

test('nothing set is plain text and no login', (t) => t.deepEqual(access({}), {}));

test('TLS with what Node trusts, with an authority, with a certificate of our own, and with a login', (t) => {
  t.deepEqual(access({ KAFKA_TLS: 'true' }), { ssl: {} });
  const { KAFKA_TLS_CA } = files;
  t.deepEqual(access({ KAFKA_TLS: 'true', KAFKA_TLS_CA }), { ssl: { ca: Buffer.from(authority.cert) } });
  const { ssl, sasl } = access({ KAFKA_TLS: 'true', ...files, ...login });
  t.deepEqual(Object.keys(ssl as object).toSorted(), ['ca', 'cert', 'key']);
  t.deepEqual(sasl as unknown, { mechanism: 'scram-sha-512', username: 'hub', password });
  t.deepEqual(Object.keys(access(login)), ['sasl'], 'SCRAM shows no password');
});

test('half a configuration is refused by its settings', (t) => {
  const { KAFKA_SASL_PASSWORD: _, ...half } = login;
  const cases: [NodeJS.ProcessEnv, RegExp][] = [
    [files, /need KAFKA_TLS=true/],
    [{ KAFKA_TLS: 'true', KAFKA_TLS_CERT: files.KAFKA_TLS_CERT }, /set both of KAFKA_TLS_CERT and KAFKA_TLS_KEY/],
    [half, /set all of KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD/],
    [{ ...login, KAFKA_SASL_MECHANISM: 'plain' }, /plain shows the password to the network/],
    [{ ...login, KAFKA_SASL_MECHANISM: 'oauthbearer' }, /KAFKA_SASL_MECHANISM/],
    [{ ...login, KAFKA_SASL_PASSWORD: 'changeme' }, /KAFKA_SASL_PASSWORD must be a secret/],
    [{ KAFKA_TLS: 'yes' }, /KAFKA_TLS/],
  ];
  for (const [env, message] of cases) {
    const error = t.throws(() => access(env), { instanceOf: ConfigError });
    t.regex(error.message, message);
    t.false(error.message.includes(password));
  }
});
