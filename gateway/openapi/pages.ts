import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import { Problem } from '../http/problem.ts';
import { answerFixed, Fixed } from '../http/conditional-get.ts';

/** The two pages of documentation. */
export type Page = 'docs' | 'redoc';

const swaggerUi = (name: string) => fileURLToPath(import.meta.resolve(`swagger-ui-dist/${name}`));
const vendored = (path: string) => fileURLToPath(new URL(`../../third_party/${path}`, import.meta.url));

/** Where a file is, or what is in it. */
type Asset = { file: string } | { text: string };

/** The files that a page loads, by the name under which it does. */
const assets: Readonly<Record<Page, Readonly<Record<string, Asset>>>> = {
  docs: {
    'swagger-ui.css': { file: swaggerUi('swagger-ui.css') },
    'swagger-ui-bundle.js': { file: swaggerUi('swagger-ui-bundle.js') },
    'favicon-32x32.png': { file: swaggerUi('favicon-32x32.png') },
    'start.js': {
      text: `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#page',
  deepLinking: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
`,
    },
  },
  redoc: {
    'redoc.standalone.js': { file: vendored('redoc/redoc.standalone.js') },
    'start.js': {
      text: `Redoc.init('openapi.json', { hideLoading: true, nativeScrollbars: true }, document.getElementById('page'));
`,
    },
  },
};

/** The names of the files that a page loads. */
export function assetNames(page: Page): string[] {
  return Object.keys(assets[page]);
}

const contentTypes: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  png: 'image/png',
};

/**
 * The Content-Security-Policy of the pages: they may load files of this server, and call it. Both libraries set inline styles; Redoc also
 * searches in a worker made from a blob.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  'worker-src blob:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

function pageOf(page: Page): string {
  const names = assetNames(page);
  const styles = names
    .filter((name) => name.endsWith('.css'))
    .map((name) => `<link rel="stylesheet" href="${page}/${name}">`);
  const icons = names.filter((name) => name.endsWith('.png')).map((name) => `<link rel="icon" href="${page}/${name}">`);
  const scripts = names.filter((name) => name.endsWith('.js')).map((name) => `<script src="${page}/${name}"></script>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API documentation</title>
${[...styles, ...(icons.length > 0 ? icons : ['<link rel="icon" href="data:,">'])].join('\n')}
</head>
<body>
<div id="page"></div>
${scripts.join('\n')}
</body>
</html>
`;
}

/** Answers with the documentation of the API. What it holds is as much as the pages load, in each coding that was asked for. */
export class Docs {
  readonly #document: Fixed;
  readonly #pages: Readonly<Record<Page, Fixed>>;
  readonly #assets = new Map<object, Promise<Fixed>>();

  /** @param document the OpenAPI document */
  constructor(document: object) {
    this.#document = new Fixed(JSON.stringify(document), 'application/json');
    const page = (which: Page) => new Fixed(pageOf(which), 'text/html; charset=utf-8');
    this.#pages = { docs: page('docs'), redoc: page('redoc') };
  }

  /** The OpenAPI document. */
  document(response: ServerResponse): Promise<void> {
    return answerFixed(response, this.#document);
  }

  /** A page that shows it. */
  page(response: ServerResponse, page: Page): Promise<void> {
    return answerFixed(response, this.#pages[page], { 'Content-Security-Policy': policy });
  }

  /** A file that a page loads. @throws Problem 404 */
  async asset(response: ServerResponse, page: Page, name: string): Promise<void> {
    const asset = Object.hasOwn(assets[page], name) ? assets[page][name] : undefined;
    if (asset === undefined) throw new Problem(404, 'ROUTE_NOT_FOUND', 'There is nothing at this path');
    const type = contentTypes[name.slice(name.lastIndexOf('.') + 1)] as string;
    await answerFixed(response, await this.#read(asset, type));
  }

  #read(asset: Asset, type: string): Promise<Fixed> {
    let fixed = this.#assets.get(asset);
    if (fixed === undefined) {
      fixed = contentOf(asset).then((content) => new Fixed(content, type));
      this.#assets.set(asset, fixed);
      fixed.catch(() => this.#assets.delete(asset));
    }
    return fixed;
  }
}

async function contentOf(asset: Asset): Promise<string | Buffer> {
  return 'text' in asset ? asset.text : await readFile(asset.file);
}
