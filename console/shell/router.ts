import { computed, signal } from '@preact/signals';

/** The views of the console have URLs below `/console`: `/console/messages/<id>` is the path `['messages', '<id>']`. */

const base = '/console';

function here(): string {
  return location.pathname + location.search;
}

const current = signal(here());

/** The segments of the path below `/console`, decoded. */
export const path = computed<readonly string[]>(() => {
  const { pathname } = new URL(current.value, location.origin);
  return pathname
    .slice(base.length)
    .split('/')
    .filter((segment) => segment !== '')
    .map((segment) => {
      try {
        return decodeURIComponent(segment);
      } catch {
        return segment;
      }
    });
});

/** The parameters behind the path. */
export const query = computed(() => new URL(current.value, location.origin).searchParams);

/** The URL of a view. @param segments its path below `/console`, not encoded */
export function urlOf(...segments: readonly string[]): string {
  return [base, ...segments.map((segment) => encodeURIComponent(segment))].join('/');
}

/** Goes to a view. @param replace whether Back is to lead to the view before this one */
export function goTo(url: string, { replace = false } = {}): void {
  if (url === here()) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  current.value = here();
}

/** Lets links lead to views without loading the page anew, and Back and Forward work. Called once. */
export function startRouter(): void {
  addEventListener('popstate', () => (current.value = here()));
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (link === null || link.target !== '' || link.hasAttribute('download') || link.origin !== location.origin) return;
    if (link.pathname !== base && !link.pathname.startsWith(`${base}/`)) return;
    event.preventDefault();
    goTo(link.pathname + link.search);
  });
}
