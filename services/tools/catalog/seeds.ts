import type { Catalog } from './catalog.ts';
import type { Subscriptions } from '../subscriptions/subscriptions.ts';

/** The administrator that the auth service creates in laptop mode. */
const seededAdmin = '00000000-0000-4000-8000-0000000000ad';

const demoTools = [
  {
    id: '00000000-0000-4000-8000-0000000e0001',
    name: 'echo',
    path: '/echo',
    description: 'Answers with what it was sent.',
  },
  {
    id: '00000000-0000-4000-8000-0000000e0002',
    name: 'text-stats',
    path: '/text-stats',
    description: 'Counts the characters, words and lines of a text: {"text": "…"}.',
  },
];

/** Adds what a newcomer can try at once: two demo tools below `url`, and a subscription for the administrator. */
export async function seed({
  catalog,
  subscriptions,
  url,
}: {
  catalog: Catalog;
  subscriptions: Subscriptions;
  url: string;
}): Promise<void> {
  for (const { path, ...tool } of demoTools)
    await catalog.seed({ ...tool, apiEndpoint: `${url.replace(/\/$/, '')}${path}` });
  if ((await subscriptions.find(seededAdmin)) === undefined) await subscriptions.subscribe(seededAdmin, 'free');
}
