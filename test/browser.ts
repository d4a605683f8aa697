import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import axe from 'axe-core';
import puppeteer, { type Browser, type BrowserContext, type CDPSession, type Page } from 'puppeteer-core';
import { placeOnPath } from '../dev/engines/install.ts';

/** Tests in a real browser: Chromium, headless, driven over its own protocol. */

const chromium = placeOnPath('chromium') ?? placeOnPath('google-chrome');
if (chromium === undefined && process.env.CI === 'true') throw new Error('With CI=true there must be a chromium');

/** Whether there is a Chromium: without it, tests that need one are skipped. */
export const chromiumIsThere: boolean = chromium !== undefined;

/** A browser, and what its pages have complained of. */
export interface TestBrowser {
  /** Somebody's own browser: nothing of it is seen in another one. */
  openContext(): Promise<BrowserContext>;
  close(): Promise<void>;
}

/** Milliseconds in which whatever a test waits for has to be there. */
export const patience = 30_000;

/** Opens a browser. For the tests of a file: `const browser = opened(openBrowser, (browser) => browser.close())`. */
export async function openBrowser(): Promise<TestBrowser> {
  if (chromium === undefined) return { openContext: () => Promise.reject(new Error('no Chromium')), async close() {} };
  const profile = await mkdtemp(path.join(tmpdir(), 'chat4all-chromium-'));
  const browser: Browser = await puppeteer.launch({
    executablePath: chromium,
    userDataDir: profile,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-sync', '--disable-background-networking'],
    timeout: 60_000,
    protocolTimeout: 120_000,
    // What pages send and get is not told to the test: a file would be copied to it, chunk by chunk.
    networkEnabled: false,
  });
  return {
    openContext: () => browser.createBrowserContext(),
    async close() {
      await browser.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A page that keeps what it complains of: errors, what its policy has blocked, and what it wrote to the console as a warning or worse. */
export interface WatchedPage {
  page: Page;
  complaints: string[];
}

/** @param size of a desk by default */
export async function openPage(context: BrowserContext, size = { width: 1280, height: 800 }): Promise<WatchedPage> {
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  await page.setViewport(size);
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(`error: ${String(error)}`));
  page.on('console', (message) => {
    const type = message.type();
    if (type === 'error' || type === 'warn') complaints.push(`${type}: ${message.text()}`);
  });
  return { page, complaints };
}

/** What changes the network of a page. */
const networks = new WeakMap<Page, CDPSession>();

/** Lets a page have a worse network, or none. @param upload bytes per second; 0 is none, not given is all that there is */
export async function setNetwork(page: Page, { upload = -1 }: { upload?: number } = {}): Promise<void> {
  let session = networks.get(page);
  if (session === undefined) {
    networks.set(page, (session = await page.createCDPSession()));
    await session.send('Network.enable', { maxPostDataSize: 1 });
  }
  const conditions = { offline: upload === 0, latency: 0, downloadThroughput: -1, uploadThroughput: upload };
  await session.send('Network.emulateNetworkConditions', conditions);
}

/** What axe finds wrong with a page as it is now, in light and in dark, a line each. */
export async function accessibilityProblems(page: Page): Promise<string[]> {
  const found: string[] = [];
  // The debugger's own way in is not the page's, whose policy lets no text become a script.
  await page.evaluate(axe.source);
  for (const value of ['light', 'dark']) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value }]);
    const { violations } = (await page.evaluate('axe.run({ resultTypes: ["violations"] })')) as {
      violations: { id: string; help: string; nodes: { html: string; failureSummary?: string }[] }[];
    };
    for (const { id, help, nodes } of violations) {
      for (const { html, failureSummary = '' } of nodes) {
        found.push(`${value} ${page.url()} ${id}: ${help}: ${html.slice(0, 200)} ${failureSummary}`);
      }
    }
  }
  return found;
}
