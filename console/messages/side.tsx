import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef } from 'preact/hooks';
import { CloseIcon } from '../shell/icons.tsx';
import { goTo, urlOf } from '../shell/router.ts';

/** What stands beside a conversation; on a phone in its place. Escape closes it. */
export function Side({
  title,
  conversation,
  children,
}: {
  title: string;
  conversation: string;
  children: ComponentChildren;
}) {
  const id = useId();
  const heading = useRef<HTMLHeadingElement>(null);
  const close = urlOf('messages', conversation);
  useEffect(() => heading.current?.focus(), [title]);
  return (
    <aside
      class="side"
      aria-labelledby={id}
      onKeyDown={(event) => {
        if (event.key === 'Escape') goTo(close);
      }}
    >
      <header class="row apart">
        <h2 id={id} ref={heading} tabIndex={-1}>
          {title}
        </h2>
        <a class="button plain icon" href={close} aria-label="Close">
          <CloseIcon />
        </a>
      </header>
      <div class="body" tabIndex={0} role="region" aria-labelledby={id}>
        {children}
      </div>
    </aside>
  );
}
