import { readdirSync, readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import path from 'node:path';
import { answerFixed, Fixed } from './http/conditional-get.ts';
import { Problem } from './http/problem.ts';

const contentTypes: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};

/**
 * What the page of the console may do: load its own files, call this server, and set no text as HTML or script. Its one policy of Trusted
 * Types makes the URL of its worker, and no HTML.
 */
const headers = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    'trusted-types checksum-worker',
  ].join('; '),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
};

const assetHeaders = {
  'Cache-Control': 'public, max-age=31536000, immutable',
  // Of a worker: it loads nothing and calls nobody.
  'Content-Security-Policy': "default-src 'none'",
};

/**
 * Answers with the files of the console (`npm run console:build`). Each is read once, and compressed once for each coding. The names of
 * its assets have a hash of the content, so that browsers may keep them for good.
 */
export class ConsoleFiles {
  readonly #page: Fixed;
  readonly #assets: ReadonlyMap<string, Fixed>;

  /** @throws Error if the files are not there */
  constructor(folder: string) {
    this.#page = new Fixed(readFileSync(path.join(folder, 'index.html')), 'text/html; charset=utf-8');
    const assets = path.join(folder, 'assets');
    this.#assets = new Map(
      readdirSync(assets).map((name) => [
        name,
        new Fixed(readFileSync(path.join(assets, name)), contentTypes[path.extname(name)] as string),
      ]),
    );
  }

  /** The page, for each of its views. */
  page(response: ServerResponse): Promise<void> {
    return answerFixed(response, this.#page, headers);
  }

  /** A file that the page loads. @throws Problem 404 */
  async asset(response: ServerResponse, name: string): Promise<void> {
    const asset = this.#assets.get(name);
    if (asset === undefined) throw new Problem(404, 'ROUTE_NOT_FOUND', 'There is nothing at this path');
    await answerFixed(response, asset, assetHeaders);
  }
}
