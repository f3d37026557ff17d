// What the tests of the pages share. Each test prints `ok NAME` or `not ok NAME`.

import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';

export const { KAPO, WORK, MODULES, ROOT, LIMITED, UPDATE_IMAGES } = process.env;
const load = createRequire(MODULES + '/node_modules/');
const puppeteer = load('puppeteer-core');
const axe = fs.readFileSync(MODULES + '/node_modules/axe-core/axe.min.js', 'utf8');

export const started = [];
let failures = 0;

function report(name, good, why) {
  console.log((good ? 'ok ' : 'not ok ') + name);
  if (!good) {
    failures++;
    console.log('    ' + String(why).replaceAll('\n', '\n    '));
  }
}

let pages = [];

/* Runs one test and closes its pages, which would hold connections. A browser allows six to a server. */
export async function test(name, body, keep) {
  try {
    await body();
    report(name, true);
  } catch (error) {
    report(name, false, error.stack || error);
  }
  if (keep) return;
  for (const page of pages) await page.close().catch(() => {});
  pages = [];
}

export function equal(got, wanted) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error('wanted ' + b + ', got ' + a);
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what, condition) {
  for (let left = 400; left > 0; left--) {
    if (await condition()) return;
    await pause(25);
  }
  throw new Error('timed out waiting until ' + what);
}

/* Starts kapo on a free port. Returns the child with its URL. */
export async function kapo(words, program = KAPO) {
  const log = WORK + '/kapo-' + started.length + '.log';
  const child = spawn(program, ['--interface', '127.0.0.1', '--port', '0', ...words],
    { cwd: WORK, stdio: ['ignore', 'ignore', fs.openSync(log, 'w')], env: { ...process.env, RUNTIME_DIRECTORY: WORK } });
  started.push(child);
  child.over = new Promise((resolve) => child.on('exit', resolve));
  let found = null;
  await until('kapo listens', () => (found = fs.readFileSync(log, 'utf8').match(/msg="?listening"? address=(\S+)/)));
  child.url = 'http://' + found[1] + '/';
  return child;
}

/* Opens a page that notes everything that must not happen. */
export async function open(browser, url, settings = {}) {
  const page = await browser.newPage();
  pages.push(page);
  page.bad = [];
  // The policy stops the browser's own request for an icon, which Firefox reports.
  page.on('pageerror', (error) => String(error).includes('/favicon.ico') || page.bad.push('error ' + error));
  page.on('dialog', (dialog) => {
    page.bad.push('dialog ' + dialog.message());
    dialog.dismiss();
  });
  page.on('console', (message) => /Content.Security/i.test(message.text()) && page.bad.push('console ' + message.text()));
  page.on('request', (request) => new URL(request.url()).origin === new URL(url).origin || request.url().startsWith('data:') ||
    page.bad.push('request ' + request.url()));
  await page.setViewport({ width: settings.width || 1000, height: 800 });
  if (settings.dark) await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  if (settings.before) await page.evaluateOnNewDocument(settings.before);
  if (settings.scripts === false) await page.setJavaScriptEnabled(false);
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await page.evaluate(() => { window.sameDocument = true; });
  return page;
}

export const stateOf = (page) => page.evaluate(() => document.getElementById('top').dataset.state);
export const textOf = (page, selector) => page.evaluate((s) => document.querySelector(s).textContent, selector);

export async function reaches(page, state) {
  await page.waitForFunction((wanted) => document.getElementById('top').dataset.state === wanted,
    { timeout: 15000, polling: 20 }, state)
    .catch(async () => { throw new Error('wanted ' + state + ', is ' + await stateOf(page) + ': ' + await textOf(page, '#verdict')); });
  equal(await page.evaluate(() => window.sameDocument), true);
}

export async function accessible(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run();
    return violations.map((v) => v.id + ': ' + v.nodes.map((node) => node.target + ' ' + node.failureSummary).join(' | '));
  });
  equal(found, []);
}

/* Starts a browser; returns null if it is not installed, as the shell script says. */
export async function launch(browser) {
  const program = { chromium: 'chromium', firefox: 'firefox-esr' }[browser];
  let path;
  try {
    path = execFileSync('which', [program]).toString().trim();
  } catch {
    return null;
  }
  const args = browser === 'chromium' ? ['--no-sandbox', '--disable-dev-shm-usage'] : [];
  return puppeteer.launch({ browser: browser === 'chromium' ? 'chrome' : 'firefox', executablePath: path, args, headless: true });
}

/* Ends what was started, and the tests. */
export async function finish() {
  for (const child of started) child.kill('SIGTERM');
  await pause(300);
  for (const child of started) child.kill('SIGKILL');
  process.exit(failures ? 1 : 0);
}
