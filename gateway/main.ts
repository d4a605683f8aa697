import { runProcess } from '#lib/lifecycle.ts';
import { settings, start } from './index.ts';

await runProcess([{ name: 'gateway', settings, start }]);
