import type { ComponentType } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { Empty } from '../shell/components.tsx';
import { goTo, urlOf } from '../shell/router.ts';
import { isAdmin } from '../shell/session.ts';
import { Books } from './books.tsx';
import { Changes } from './changes.tsx';
import { DeadLetters } from './dead-letters.tsx';
import { Keys } from './keys.tsx';
import { Networks } from './networks.tsx';
import { PlanView } from './plan.tsx';
import { Profile } from './profile.tsx';
import { Statistics } from './statistics.tsx';
import { ToolAdmin } from './tool-admin.tsx';
import { Tools } from './tools.tsx';
import { Trace } from './trace.tsx';
import { Usage } from './usage.tsx';
import { Users } from './users.tsx';
import { Webhooks } from './webhooks.tsx';

interface View {
  /** The segment of its path below `/console/dashboard`. */
  name: string;
  title: string;
  /** Gets the segments behind its own. */
  Show: ComponentType<{ path: readonly string[] }>;
}

const everybodys: readonly View[] = [
  { name: 'usage', title: 'Usage', Show: Usage },
  { name: 'tools', title: 'Tools', Show: Tools },
  { name: 'plan', title: 'Plan', Show: PlanView },
  { name: 'keys', title: 'API keys', Show: Keys },
  { name: 'webhooks', title: 'Webhooks', Show: Webhooks },
  { name: 'profile', title: 'Profile', Show: Profile },
];

const administrators: readonly View[] = [
  { name: 'books', title: 'Books', Show: Books },
  { name: 'dead-letters', title: 'Dead letters', Show: DeadLetters },
  { name: 'trace', title: 'Trace', Show: Trace },
  { name: 'networks', title: 'Networks', Show: Networks },
  { name: 'users', title: 'Users', Show: Users },
  { name: 'all-tools', title: 'All tools', Show: ToolAdmin },
  { name: 'statistics', title: 'Statistics', Show: Statistics },
  { name: 'changes', title: 'Changes', Show: Changes },
];

/** `/console/dashboard/<view>`: one's account and what one uses; for administrators, also how the hub fares. */
export function Dashboard({ path: [name, ...rest] }: { path: readonly string[] }) {
  useEffect(() => {
    if (name === undefined) goTo(urlOf('dashboard', everybodys[0]!.name), { replace: true });
  }, [name]);
  const place = [name, ...rest].join('/');
  useEffect(() => {
    // What scrolls is the same for all views.
    document.getElementById('part')?.scrollTo(0, 0);
  }, [place]);
  const isTheirs = administrators.some((each) => each.name === name);
  const view = [...everybodys, ...(isAdmin.value ? administrators : [])].find((each) => each.name === name);
  return (
    <div class="dashboard">
      <nav aria-label="Dashboard">
        <Entries of={everybodys} chosen={name} />
        {isAdmin.value && (
          <>
            <p class="quiet small">For administrators</p>
            <Entries of={administrators} chosen={name} />
          </>
        )}
      </nav>
      <div class="view" key={name}>
        {view !== undefined ? (
          <view.Show path={rest} />
        ) : isTheirs ? (
          <Empty title="For administrators only">
            <p>Your account is not an administrator’s.</p>
          </Empty>
        ) : (
          name !== undefined && (
            <Empty title="There is nothing here">
              <a href={urlOf('dashboard')}>Go to the beginning</a>
            </Empty>
          )
        )}
      </div>
    </div>
  );
}

function Entries({ of, chosen }: { of: readonly View[]; chosen: string | undefined }) {
  return (
    <ul>
      {of.map(({ name, title }) => (
        <Entry key={name} name={name} title={title} isChosen={name === chosen} />
      ))}
    </ul>
  );
}

function Entry({ name, title, isChosen }: { name: string; title: string; isChosen: boolean }) {
  const link = useRef<HTMLAnchorElement>(null);
  useEffect(() => {
    // On a phone the entries are in a row that is wider than the page.
    if (isChosen) link.current?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }, [isChosen]);
  return (
    <li>
      <a ref={link} href={urlOf('dashboard', name)} aria-current={isChosen ? 'page' : undefined}>
        {title}
      </a>
    </li>
  );
}
