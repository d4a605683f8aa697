import type { InstallOptions } from './install.ts';
import { installKafka, kafkaAvailable, kafkaNeeds, startKafka } from './kafka.ts';
import { installMinio, minioAvailable, minioNeeds, startMinio } from './minio.ts';
import type { Server } from './server-process.ts';

export interface NativeEngineOptions extends InstallOptions {
  dataDir: string;
  /** A free one by default. */
  port?: number | undefined;
}

/** A real engine that a machine with the right tools can run without containers. */
export interface NativeEngine {
  name: string;
  /** What the machine must have for it. */
  needs: string;
  isAvailable(): boolean;
  /** Downloads or builds it, once per machine. */
  install(options: InstallOptions): Promise<void>;
  /** Starts it, with the environment in which the services use it. */
  start(options: NativeEngineOptions): Promise<{ server: Server; env: Record<string, string> }>;
}

export const kafka: NativeEngine = {
  name: 'Kafka',
  needs: kafkaNeeds,
  isAvailable: kafkaAvailable,
  install: installKafka,
  async start(options) {
    const server = await startKafka(options);
    return { server, env: { KAFKA_BROKERS: server.brokers } };
  },
};

export const minio: NativeEngine = {
  name: 'MinIO',
  needs: minioNeeds,
  isAvailable: minioAvailable,
  install: installMinio,
  async start(options) {
    const server = await startMinio(options);
    const { endpoint, accessKey, secretKey } = server;
    return { server, env: { S3_ENDPOINT: endpoint, S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey } };
  },
};
