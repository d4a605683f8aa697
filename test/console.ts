import type { BrowserContext, Page } from 'puppeteer-core';
import { eventually } from './eventually.ts';
import { openPage, patience, type WatchedPage } from './browser.ts';

/** The console in a browser, as somebody uses it who sees it. */

/** What is to be read on a page; nothing while it goes to another one. */
export async function textOf(page: Page): Promise<string> {
  try {
    return (await page.evaluate('document.body?.innerText ?? ""')) as string;
  } catch (error) {
    if (error instanceof Error && error.message.includes('Execution context was destroyed')) return '';
    throw error;
  }
}

/** Waits until a page shows a text. */
export async function shows(page: Page, text: string): Promise<void> {
  await eventually(
    `the page shows ${JSON.stringify(text)}`,
    () => textOf(page),
    (found) => found.includes(text),
    patience,
  );
}

/** Fills the field with that label. */
export function fill(page: Page, label: string, value: string): Promise<void> {
  return doing(page, `fill ${label}`, () => page.locator(`::-p-aria([name="${label}"][role="textbox"])`).fill(value));
}

/** Presses the button with that name. */
export function press(page: Page, name: string): Promise<void> {
  return doing(page, `press ${name}`, () => page.locator(`::-p-aria([name="${name}"][role="button"])`).click());
}

/** Follows the link with that name. */
export function follow(page: Page, name: string): Promise<void> {
  return doing(page, `follow ${name}`, () => page.locator(`::-p-aria([name="${name}"][role="link"])`).click());
}

/** Does something on a page; if that can't be done, the error says what, and what is on the page. */
async function doing(page: Page, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`Can't ${what} on the page\n${(await textOf(page)).slice(0, 2_000)}`, { cause: error });
  }
}

/** Opens the console as somebody who logs in. @param view the path below `/console` that is asked for */
export async function logIn(
  context: BrowserContext,
  url: string,
  username: string,
  {
    view = '',
    size,
    password = 'password123',
  }: { view?: string; size?: { width: number; height: number }; password?: string } = {},
): Promise<WatchedPage> {
  const watched = await openPage(context, size);
  await watched.page.goto(`${url}/console${view}`);
  await fill(watched.page, 'Username or email', username);
  await fill(watched.page, 'Password', password);
  await press(watched.page, 'Log in');
  await watched.page.waitForSelector('.frame');
  return watched;
}
