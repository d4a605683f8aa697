import { render } from 'preact';
import { assistant } from './assistant/part.ts';
import { dashboard } from './dashboard/part.ts';
import { messages } from './messages/part.ts';
import { startColours } from './shell/colours.ts';
import { Console, startParts } from './shell/console.tsx';
import { startLive } from './shell/live.ts';
import type { Part } from './shell/parts.ts';
import { startRouter } from './shell/router.ts';
import { startSession } from './shell/session.ts';

/** The parts, in the order of the navigation. */
const parts: readonly Part[] = [messages, assistant, dashboard];

startColours();
startRouter();
startParts(parts);
startLive();
render(<Console parts={parts} />, document.getElementById('console')!);
void startSession();
