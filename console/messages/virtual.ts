import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from '@tanstack/virtual-core';
import { useLayoutEffect, useReducer, useState } from 'preact/hooks';

/**
 * Of a long list, only what is seen is on the page. Whoever reads at its end stays there when something comes; whoever reads further up stays
 * where they are, whatever comes or changes its height.
 */
export function useVirtualList(options: {
  count: number;
  scroller: () => HTMLElement | null;
  keyOf: (index: number) => string | number;
  /** The height of an item that was not measured yet, in pixels. */
  estimate: (index: number) => number;
}): Virtualizer<HTMLElement, HTMLElement> {
  const [, render] = useReducer((count: number) => count + 1, 0);
  const resolved = {
    count: options.count,
    getScrollElement: options.scroller,
    getItemKey: options.keyOf,
    estimateSize: options.estimate,
    overscan: 10,
    anchorTo: 'end' as const,
    followOnAppend: true,
    scrollEndThreshold: 40,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => render(0),
  };
  const [list] = useState(() => new Virtualizer<HTMLElement, HTMLElement>(resolved));
  list.setOptions(resolved);
  useLayoutEffect(() => list._didMount(), [list]);
  useLayoutEffect(() => list._willUpdate());
  return list;
}
