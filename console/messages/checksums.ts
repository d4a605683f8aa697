/** What the worker answers. */
export type Hashed = { checksum: string } | { error: unknown };

/** The URL of the worker's script, which the build puts in. */
declare const checksumWorkerUrl: string;

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(): string }): { createScriptURL(url: string): string };
}

/** Browsers with Trusted Types take URLs of scripts from the policies only that the gateway allows. This is the only one, with one URL. */
const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
const policy = trustedTypes?.createPolicy('checksum-worker', { createScriptURL: () => checksumWorkerUrl });

/** The SHA-256 of a file, computed beside the page. @throws the reason of the signal, or a DOMException if the file can't be read */
export async function checksumInWorker(file: Blob, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  const worker = new Worker(policy?.createScriptURL(checksumWorkerUrl) ?? checksumWorkerUrl);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort);
  worker.addEventListener('message', ({ data }: MessageEvent<Hashed>) => {
    if ('checksum' in data) resolve(data.checksum);
    else reject(data.error);
  });
  worker.addEventListener('error', () => reject(new Error('The worker has failed')));
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no target
  worker.postMessage(file);
  try {
    return await promise;
  } finally {
    worker.terminate();
    signal.removeEventListener('abort', abort);
  }
}
