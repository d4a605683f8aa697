import { effect, untracked } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { colours, switchColours } from './colours.ts';
import { Empty, Loading } from './components.tsx';
import { Door, LoginAgain } from './door.tsx';
import { ColoursIcon, LeaveIcon } from './icons.tsx';
import type { Part } from './parts.ts';
import { goTo, path, urlOf } from './router.ts';
import { account, isReachable, logOut, standing } from './session.ts';

/** Views that are there for whoever is not logged in only. */
const doors = new Set(['login', 'register', 'forgotten']);

/** The whole console: the door, or the frame with one of its parts. */
export function Console({ parts }: { parts: readonly Part[] }) {
  if (standing.value === 'starting') {
    return isReachable.value ? (
      <Loading what="the console" />
    ) : (
      <Empty title="No connection to the hub">
        <p role="status">Trying again…</p>
      </Empty>
    );
  }
  // The link of a mail works whoever is logged in here.
  if (standing.value === 'out' || path.value[0] === 'reset') return <Door />;
  return (
    <>
      <Frame parts={parts} />
      {standing.value === 'expired' && <LoginAgain />}
    </>
  );
}

function Frame({ parts }: { parts: readonly Part[] }) {
  const [name, ...rest] = path.value;
  const isElsewhere = name === undefined || doors.has(name);
  useEffect(() => {
    if (isElsewhere) goTo(urlOf(parts[0]!.name), { replace: true });
  }, [isElsewhere]);
  const part = parts.find((each) => each.name === name);
  return (
    <div class="frame">
      <a class="button skip" href="#part" onClick={skip}>
        Skip the navigation
      </a>
      <nav aria-label="Parts of the console">
        {parts.map(({ name: own, title, Icon, unseen }) => (
          <a key={own} href={urlOf(own)} aria-current={own === name ? 'page' : undefined}>
            <Icon />
            {title}
            <Unseen count={unseen?.() ?? 0} />
          </a>
        ))}
        <span class="spring" />
        <button type="button" onClick={switchColours}>
          <ColoursIcon />
          <span class="hidden-text">Colours: </span>
          {{ device: 'Auto', light: 'Light', dark: 'Dark' }[colours.value]}
        </button>
        <button type="button" onClick={() => void logOut()} title={`Logged in as ${account.value?.username}`}>
          <LeaveIcon />
          Log out
        </button>
      </nav>
      <div class="banner" role="status">
        {!isReachable.value && <p class="notice warn">No connection to the hub. Trying again…</p>}
      </div>
      <main id="part" tabIndex={-1}>
        {part !== undefined ? (
          <>
            <h1 class="hidden-text">{part.title}</h1>
            <part.View path={rest} />
          </>
        ) : (
          !isElsewhere && (
            <>
              <h1 class="hidden-text">Chat4All</h1>
              <Empty title="There is nothing here">
                <a href={urlOf()}>Go to the beginning</a>
              </Empty>
            </>
          )
        )}
      </main>
    </div>
  );
}

function Unseen({ count }: { count: number }) {
  if (count === 0) return null;
  return (
    <span class="badge">
      {count > 99 ? '99+' : count}
      <span class="hidden-text"> unread</span>
    </span>
  );
}

function skip(event: MouseEvent) {
  event.preventDefault();
  document.getElementById('part')?.focus();
}

/** Starts the parts once somebody has logged in, and names the page after what it shows. Called once. */
export function startParts(parts: readonly Part[]): void {
  let isStarted = false;
  effect(() => {
    if (standing.value !== 'in' || isStarted) return;
    isStarted = true;
    untracked(() => {
      for (const part of parts) part.start?.();
    });
  });
  effect(() => {
    const part = parts.find(({ name }) => name === path.value[0]);
    if (part === undefined || standing.value !== 'in') {
      document.title = 'Chat4All';
      return;
    }
    const unseen = parts.reduce((sum, { unseen }) => sum + (unseen?.() ?? 0), 0);
    document.title = `${unseen > 0 ? `(${unseen}) ` : ''}${part.title} · Chat4All`;
  });
}
