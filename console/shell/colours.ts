import { effect, signal } from '@preact/signals';
import { kept } from './storage.ts';

/** Light, dark, or as the device has it. */
export type Colours = 'light' | 'dark' | 'device';

export const colours = signal<Colours>((kept.get('colours') as Colours | undefined) ?? 'device');

/** Light follows the device's choice, dark follows light. */
export function switchColours(): void {
  const order: readonly Colours[] = ['device', 'light', 'dark'];
  colours.value = order[(order.indexOf(colours.value) + 1) % order.length]!;
}

/** Shows the chosen colours, and keeps the choice. Called once. */
export function startColours(): void {
  effect(() => {
    const { value } = colours;
    document.documentElement.dataset.colours = value;
    kept.set('colours', value === 'device' ? undefined : value);
  });
}
