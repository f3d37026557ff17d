// The tests of fleet.sh.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { KAPO, ROOT, UPDATE_IMAGES, WORK, accessible, equal, finish, kapo, launch, open, pause, reaches, started, test, textOf, until } from './browser.mjs';

const TYPES = { HTML: 'text/html; charset=utf-8', JSON: 'application/json' };
const NONE = '0001-01-01T00:00:00Z';
const START = Date.now();
const ago = (seconds) => new Date(START - seconds * 1000).toISOString();

function row(name, state, more = {}) {
  const runs = ['running', 'unready', 'stopping', 'flapping'].includes(state);
  const silent = ['dead', 'stuck', 'denied', 'foreign'].includes(state);
  return { Name: name, Socket: '/run/kapo/' + name + '.sock', State: state, KapoPid: 4000, Uid: 1000,
    Command: silent ? '' : './server', Pid: runs ? 4001 : 0, Ready: state === 'running', Flapping: state === 'flapping',
    Restarts: 0, StartTime: silent ? NONE : ago(600), NextStart: NONE, ExpiresAt: NONE, EndTime: runs || silent ? NONE : ago(60),
    ExitCode: 0, Reason: '', Memory: runs ? 5000000 : null, ...more };
}

/* A server with the rows of `kapo fleet`. */
async function serve(rows, port = 0) {
  const all = new Map(rows.map((one) => [one.Socket, one]));
  const streams = new Set();
  const fields = { 'Content-Security-Policy': fs.readFileSync(ROOT + '/ui/csp.txt', 'utf8'), 'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store' };
  const server = http.createServer((request, answer) => {
    const { pathname, search } = new URL(request.url, 'http://x');
    if (pathname === '/' && request.headers['upgrade-insecure-requests'] && !search) {
      answer.writeHead(200, { 'Content-Type': TYPES.HTML, 'Content-Encoding': 'gzip', ...fields });
      return answer.end(Buffer.concat(['common', 'fleet'].map((part) => fs.readFileSync(ROOT + '/ui/' + part + '.gz'))));
    }
    if (pathname === '/') {
      answer.writeHead(200, { 'Content-Type': TYPES.JSON });
      return answer.end('[' + [...all.values()].map((one) => JSON.stringify(one)).join(',\n') + ']\n');
    }
    if (pathname === '/events') {
      answer.writeHead(200, { 'Content-Type': 'text/event-stream' });
      answer.write('retry: 200\n\n');
      streams.add(answer);
      return answer.on('close', () => streams.delete(answer));
    }
    answer.writeHead(404);
    answer.end('no such path\n');
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: 'http://127.0.0.1:' + server.address().port + '/',
    port: server.address().port,
    followed: () => streams.size,
    change(changed) {
      for (const one of changed) {
        if (one.State === 'removed') all.delete(one.Socket);
        else all.set(one.Socket, one);
      }
      for (const stream of streams) stream.write('event: change\ndata: ' + JSON.stringify(changed) + '\n\n');
    },
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

const live = (page) => page.waitForFunction(() => document.getElementById('top').dataset.state === 'live', { timeout: 15000, polling: 20 });
const states = (page) => page.evaluate(() => [...document.querySelectorAll('#table tbody tr:not(.gap)')].map((line) => line.cells[1].textContent));
const names = (page) => page.evaluate(() => [...document.querySelectorAll('#table tbody tr:not(.gap)')].map((line) => line.cells[0].textContent));
const frame = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

const ALL = ['flapping', 'failing', 'failed', 'gone', 'stuck', 'dead', 'denied', 'foreign', 'starting', 'unready', 'stopping',
  'pausing', 'running', 'done'];
const MANY = 10000;

function many() {
  return Array.from({ length: MANY }, (_, at) => row('worker-' + at, at % 1000 === 7 ? 'failing' : 'running',
    { Restarts: at % 5, Memory: at % 97 * 1000000 + 1, Uid: 1000 + at % 3, StartTime: ago(at),
      ...(at % 1000 === 7 ? { Reason: 'exit-code', ExitCode: 3 } : {}) }));
}

/* Notes when the first row is painted, and the long tasks. Runs in the page. */
function observe() {
  window.long = [];
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.long.push(Math.round(entry.duration)); })
    .observe({ type: 'longtask', buffered: true });
  new MutationObserver(() => {
    if (!window.painted && document.querySelector('#table tbody a')) requestAnimationFrame(() => setTimeout(() => { window.painted = window.painted || performance.now(); }));
  }).observe(document, { childList: true, subtree: true });
}

/* Returns how long after the data the first row was painted. Runs in the page. */
const measured = () => ({
  took: window.painted - performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).pathname === '/').pop().responseEnd,
  long: window.long, rows: document.querySelectorAll('#table tr').length, count: document.getElementById('table').getAttribute('aria-rowcount'),
});

/* Scrolls slowly, fast, and by jumps, a third of the steps each. Runs in the page. */
async function scroll(steps) {
  window.long.length = 0;
  const box = document.getElementById('box');
  let frames = 0, empty = 0;
  const began = performance.now();
  for (let step = 0; step < steps; step++) {
    box.scrollTop += step < steps / 3 ? 60 : step < steps * 2 / 3 ? 900 : (step % 2 ? 1 : -.8) * 100000;
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    frames++;
    const middle = box.getBoundingClientRect();
    const hit = document.elementFromPoint(middle.left + 100, middle.top + middle.height / 2);
    if (!hit.closest('tr:not(.gap)')) empty++;
  }
  return { long: window.long, frames, empty, ms: performance.now() - began, rows: document.querySelectorAll('#table tr').length };
}

/* Scrolls without a task of more than 200 ms. A busy machine stops the browser itself for so long, so it has three tries. */
async function smooth(page, steps) {
  for (let left = 3; ; left--) {
    const scrolled = await page.evaluate(scroll, steps);
    console.log('# scrolled: ' + JSON.stringify(scrolled));
    if (!scrolled.long.some((ms) => ms > 200)) return scrolled;
    if (left === 1) throw new Error(JSON.stringify(scrolled));
  }
}

const chromium = await launch('chromium');

async function smoke(browser) {
  const server = await serve([...ALL].reverse().map((state) => row('a-' + state, state)));
  const page = await open(browser, server.url);
  await live(page);
  equal(await names(page), ALL.map((state) => 'a-' + state));
  equal(await textOf(page, '#verdict'), '9 of 14 kapos are not well');
  // Killed, back, removed, new.
  const before = Date.now();
  server.change([row('a-running', 'dead')]);
  await page.waitForFunction(() => [...document.querySelectorAll('#table b.bad')].filter((state) => state.textContent === '✖ dead').length === 2,
    { polling: 20 });
  if (Date.now() - before > 1000) throw new Error(Date.now() - before + ' ms');
  equal(await textOf(page, '#verdict'), '10 of 14 kapos are not well');
  server.change([row('a-running', 'running'), row('a-gone', 'removed'), row('a-new', 'running')]);
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '8 of 14 kapos are not well');
  const shown = await names(page);
  equal([shown.includes('a-gone'), shown.includes('a-new'), shown.includes('a-running')], [false, true, true]);
  equal(page.bad, []);
  await server.stop();
}

await test('chromium: each state, and changes without a reload', () => smoke(chromium));

await test('the heads of the columns sort, by click and by key', async () => {
  const server = await serve([
    row('web-10', 'running', { Restarts: 3, Memory: 100, Uid: 5, StartTime: ago(10) }),
    row('web-9', 'running', { Restarts: 1, Memory: 300, Uid: 0, StartTime: ago(30) }),
    row('api', 'failing', { Restarts: 2, Reason: 'exit-code', ExitCode: 4, Uid: null }),
  ]);
  const page = await open(chromium, server.url);
  await live(page);
  const sorted = async (head, wanted, direction) => {
    await page.waitForFunction((at, sort) => document.querySelectorAll('th')[at].getAttribute('aria-sort') === sort, {}, head, direction);
    await frame(page);
    equal(await names(page), wanted);
    equal(await page.evaluate(() => document.querySelectorAll('[aria-sort]').length), 1);
  };
  await sorted(1, ['api', 'web-10', 'web-9'], 'ascending');
  await page.click('th:nth-child(1) button');
  await sorted(0, ['api', 'web-9', 'web-10'], 'ascending');
  await page.keyboard.press('Enter');
  await sorted(0, ['web-10', 'web-9', 'api'], 'descending');
  for (const [head, wanted, direction] of [[3, ['web-10', 'api', 'web-9'], 'descending'], [5, ['web-9', 'web-10', 'api'], 'descending'],
    [6, ['api', 'web-9', 'web-10'], 'ascending'], [2, ['web-10', 'web-9', 'api'], 'descending'], [4, ['web-10', 'web-9', 'api'], 'ascending']]) {
    await page.click('th:nth-child(' + (head + 1) + ') button');
    await sorted(head, wanted, direction);
  }
  await server.stop();
});

await test('10,000 rows: shown within a second after the data', async () => {
  const server = await serve(many());
  const page = await open(chromium, server.url, { before: observe });
  await live(page);
  await page.waitForFunction(() => window.painted);
  const seen = await page.evaluate(measured);
  console.log('# painted ' + Math.round(seen.took) + ' ms after the data; long tasks: ' + seen.long);
  if (seen.took > 1000) throw new Error(seen.took + ' ms');
  if (seen.rows > 80) throw new Error(seen.rows + ' rows');
  equal(seen.count, '' + (MANY + 1));
  equal(await textOf(page, '#verdict'), '10 of 10000 kapos are not well');

  // Scrolling, while 200 rows change in each tenth of a second.
  const changing = setInterval(() => server.change(Array.from({ length: 200 }, () => {
    const at = Math.floor(Math.random() * MANY);
    return row('worker-' + at, 'running', { Restarts: 9, StartTime: ago(at) });
  })), 100);
  const scrolled = await smooth(page, 150);
  clearInterval(changing);
  if (scrolled.rows > 80) throw new Error(scrolled.rows + ' rows');
  await page.evaluate(() => { const box = document.getElementById('box'); box.scrollTop = box.scrollHeight; });
  await page.waitForFunction((last) => document.querySelector('#table tbody tr:last-child').getAttribute('aria-rowindex') === last, {}, '' + (MANY + 1));
  equal(page.bad, []);

  await page.type('#filter', 'WORKER-77');
  await page.waitForFunction(() => document.getElementById('shown').textContent === '111 of 10000 shown');
  equal(await page.evaluate(() => document.getElementById('box').scrollTop), 0);
  await page.evaluate(() => { document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input')); });
  await page.click('#state-failing');
  await until('the failing are shown', async () => /^(\d|10) of 10000 shown$/.test(await textOf(page, '#shown')));
  equal(new Set(await states(page)), new Set(['✖ failing']));
  equal(await page.evaluate(() => document.getElementById('state-failing').getAttribute('aria-pressed')), 'true');
  await page.click('#state-failing');
  await page.waitForFunction(() => document.getElementById('shown').textContent === '');
  await server.stop();
});

await test('changes keep the place and the focus', async () => {
  const server = await serve(many());
  const page = await open(chromium, server.url);
  await live(page);
  const place = () => page.evaluate(() => {
    const box = document.getElementById('box').getBoundingClientRect();
    const lines = [...document.querySelectorAll('#table tbody tr:not(.gap)')].filter((line) => line.getBoundingClientRect().top >= box.top + 30);
    return [document.activeElement.textContent, lines[0].cells[0].textContent, Math.round(lines[0].getBoundingClientRect().top)];
  });
  await page.evaluate(() => { document.getElementById('box').scrollTop = 100000; });
  await frame(page);
  await frame(page);
  await page.evaluate(() => {
    const box = document.getElementById('box').getBoundingClientRect();
    [...document.querySelectorAll('#table tbody tr:not(.gap)')].find((line) => line.getBoundingClientRect().top >= box.top + 100)
      .querySelector('a').focus({ preventScroll: true });
    window.focused = document.activeElement;
    document.addEventListener('focusout', () => { window.out = (window.out || 0) + 1; });
  });
  const before = await place();
  // New ones in trouble above, one below, and one less above.
  server.change([...Array.from({ length: 20 }, (_, at) => row('new-' + at, 'dead')), row('worker-9999', 'failed', { Reason: 'exit-code', ExitCode: 1 }),
    row('worker-1', 'removed')]);
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '31 of 10019 kapos are not well');
  await frame(page);
  equal(await place(), before);
  // The focused row itself gets into trouble: it stays focused, the others stay.
  server.change([row(before[0], 'dead')]);
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '32 of 10019 kapos are not well');
  await frame(page);
  equal(await place(), before);
  equal(await page.evaluate(() => [window.out, document.activeElement === window.focused]), [undefined, true].map((x) => x ?? null));
  // Out of sight it keeps the focus, and the key leads to its neighbour.
  await page.evaluate(() => { document.getElementById('box').scrollTop = 200000; });
  await frame(page);
  await frame(page);
  equal(await page.evaluate(() => [window.out ?? null, document.activeElement === window.focused]), [null, true]);
  server.change([row(before[0], 'removed')]);
  await page.waitForFunction(() => document.activeElement.id === 'box');
  await server.stop();
});

await test('lost and found: the page says so and gets the list again', async () => {
  const server = await serve([row('one', 'running')]);
  const page = await open(chromium, server.url);
  await live(page);
  await server.stop();
  await page.waitForFunction(() => document.getElementById('top').dataset.state === 'lost', { timeout: 3000 });
  const verdict = await textOf(page, '#verdict');
  if (!/^no answer since .*Z; last known: the only kapo is well$/.test(verdict)) throw new Error(verdict);
  equal(await names(page), ['one']);
  const again = await serve([row('one', 'dead'), row('two', 'running')], server.port);
  await live(page);
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '1 of 2 kapos is not well'.replace('kapos is', 'kapos are'));
  equal(await names(page), ['one', 'two']);
  equal(page.bad, []);
  await again.stop();
});

const ATTACKS = ['<script>window.pwned=1</script>', '"><img src=x onerror="window.pwned=2">', "';window.pwned=3;'", '\u202eevil\x1b]0;title\x07',
  '</td></table><script>window.pwned=4</script>', 'javascript:window.pwned=5', '../../ui?x#y', 'constructor', '%2e%2e'];

async function hostile(browser) {
  const server = await serve(ATTACKS.map((attack, at) => row(attack, 'failing', { Socket: '/x/' + at, Reason: attack, ExitCode: 1, Command: attack })));
  const page = await open(browser, server.url, { before: () => {
    addEventListener('securitypolicyviolation', (event) => {
      if (!event.blockedURI.endsWith('/favicon.ico')) window.violated = event.blockedURI;
    });
  } });
  await live(page);
  server.change([row(ATTACKS[0], 'failing', { Socket: '/x/new', Reason: ATTACKS[1] })]);
  await until('the change is shown', async () => (await names(page)).length === ATTACKS.length + 1);
  equal(await page.evaluate(() => [window.pwned ?? null, window.violated ?? null,
    ...['script', 'img', 'table'].map((name) => document.querySelectorAll(name).length)]), [null, null, 2, 0, 1]);
  const shown = await names(page);
  for (const attack of [ATTACKS[0], ATTACKS[1], '\\u{202e}evil\\u{1b}]0;title\\u{7}']) equal([attack, shown.includes(attack)], [attack, true]);
  const links = await page.evaluate(() => [...document.querySelectorAll('#table tbody a')].map((link) => link.href));
  equal(links.every((link) => new RegExp('^' + server.url + 'i/[^/?#]+/ui$').test(link)), true);
  equal(page.bad, []);
  await server.stop();
}

await test('hostile names and reasons are text (chromium)', () => hostile(chromium));

for (const [name, settings] of [['light', {}], ['dark', { dark: true }], ['narrow', { width: 360 }], ['narrow and dark', { width: 360, dark: true }]]) {
  await test('the page is accessible and fits: ' + name, async () => {
    const server = await serve([...ALL.map((state) => row('a-' + state, state)), row('a'.repeat(200), 'running', { Reason: 'success' })]);
    const page = await open(chromium, server.url, settings);
    await live(page);
    await page.click('#state-running');
    await page.click('#state-running');
    await page.click('#state-dead');
    await page.click('#state-done');
    await accessible(page);
    await page.screenshot({ path: WORK + '/fleet-pressed-' + name.replaceAll(' ', '-') + '.png' });
    await page.click('#state-dead');
    await page.click('#state-done');
    await frame(page);
    await accessible(page);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > (settings.width || 1000)) throw new Error(wide + ' px');
    await page.screenshot({ path: WORK + '/fleet-' + name.replaceAll(' ', '-') + '.png' });
    equal(page.bad, []);
    await server.stop();
  });
}

await test('the keyboard reaches everything, and moves from row to row', async () => {
  const server = await serve(many());
  const page = await open(chromium, server.url);
  await live(page);
  const reached = [];
  for (let step = 0; step < 16; step++) {
    await page.keyboard.press('Tab');
    reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute('href') || document.activeElement.textContent));
  }
  equal(reached, ['./?static', 'sd', 'filter', 'state-failing', 'state-running', 'box', 'Name', 'State', 'Since', 'Restarts', 'Last end',
    'Memory', 'Owner', ...[7, 1007, 2007].map((at) => 'i/worker-' + at + '/ui')]);
  for (let step = 0; step < 60; step++) await page.keyboard.press('ArrowDown');
  await frame(page);
  const [text, inside] = await page.evaluate(() => {
    const [line, box] = [document.activeElement.closest('tr').getBoundingClientRect(), document.getElementById('box').getBoundingClientRect()];
    return [document.activeElement.closest('tr').getAttribute('aria-rowindex'), line.top >= box.top && line.bottom <= box.bottom];
  });
  equal([text, inside], ['64', true]);
  await page.keyboard.press('ArrowUp');
  equal(await page.evaluate(() => document.activeElement.closest('tr').getAttribute('aria-rowindex')), '63');
  await server.stop();
});

await test('ages tick only while the page is visible', async () => {
  const server = await serve([row('one', 'running', { StartTime: ago(5) })]);
  const page = await open(chromium, server.url);
  await live(page);
  const age = () => textOf(page, '#table tbody td:nth-child(3)');
  const first = await age();
  await until('it ticks', async () => await age() !== first);
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { get: () => true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  await pause(1200);
  const last = await age();
  await pause(2500);
  equal(await age(), last);
  server.change([row('one', 'dead')]);
  await page.waitForFunction(() => document.title.endsWith(': 1 not well'));
  await server.stop();
});

await test('without scripts the page says what to do', async () => {
  const server = await serve([row('one', 'running')]);
  const page = await chromium.newPage();
  await page.setJavaScriptEnabled(false);
  await page.goto(server.url);
  const text = await page.evaluate(() => document.querySelector('noscript').textContent).catch(() => page.content());
  if (!text.includes('kapo ls') || !text.includes('Accept: text/plain')) throw new Error(text);
  await page.close();
  await server.stop();
});


let folders = 0;

/* Returns a new folder for sockets. */
function folder() {
  const path = WORK + '/run-' + folders++;
  fs.mkdirSync(path);
  return path;
}

/* Starts a kapo with a socket in the folder. */
async function member(path, name, ...words) {
  const socket = path + '/' + name + '.sock';
  const child = spawn(KAPO, ['--quiet', '--interface', socket, ...words], { cwd: WORK, stdio: 'ignore' });
  started.push(child);
  await until(name + ' listens', () => fs.existsSync(socket));
  return child;
}

/* Notes each request that fails, except answers that tell a state: 503 of a kapo that is not well. */
function failing(page) {
  const failed = [];
  page.on('requestfailed', (request) => request.url().endsWith('/favicon.ico') ||
    failed.push(request.url() + ' ' + request.failure()?.errorText));
  page.on('response', (answer) => answer.status() < 400 || answer.url().endsWith('/favicon.ico') ||
    answer.status() === 503 && /\/(readyz|healthz)\?verbose$/.test(answer.url()) || failed.push(answer.url() + ' ' + answer.status()));
  return failed;
}

/* A command that sends its first argument as STATUS. */
const NOTIFIER = `
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ["NOTIFY_SOCKET"]
s.connect("\\0" + a[1:] if a[0] == "@" else a)
s.send(("READY=1\\nSTATUS=" + sys.argv[1]).encode())
time.sleep(600)
`;

/* A fleet of real kapos: trouble first, a kapo that is killed, and the page of one of them. */
async function real(browser) {
  const path = folder();
  // Without --tail, /logs is 404.
  await member(path, 'web', '--stdout', '--tail', '4K', 'supervise', '--wait', '60', 'sleep', '60');
  await member(path, 'api', 'supervise', '--wait', '60', 'sh', '-c', 'exit 4', '<script>window.pwned=1</script>');
  const killed = await member(path, 'db', 'run', 'sleep', '60');
  const fleet = await kapo(['fleet', path]);
  const page = await open(browser, fleet.url);
  await live(page);
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '1 of 3 kapos is not well'.replace('kapos is', 'kapos are'));
  equal(await names(page), ['api', 'db', 'web']);
  const memory = await page.evaluate(() => [...document.querySelectorAll('#table tbody tr')].pop().cells[5].textContent);
  if (!/^[0-9.]+ [KM]iB$/.test(memory)) throw new Error('memory: ' + memory);
  const before = Date.now();
  killed.kill('SIGKILL');
  await page.waitForFunction(() => [...document.querySelectorAll('#table b.bad')].some((state) => state.textContent === '✖ dead'), { polling: 20 });
  console.log('# a killed kapo is red after ' + (Date.now() - before) + ' ms');
  if (Date.now() - before > 1000) throw new Error(Date.now() - before + ' ms');

  await Promise.all([page.waitForNavigation({ waitUntil: 'domcontentloaded' }), page.click('a[href="i/web/ui"]')]);
  equal(page.url(), fleet.url + 'i/web/ui');
  const failed = failing(page);
  await page.evaluate(() => { window.sameDocument = true; });
  await reaches(page, 'ready');
  const [{ Pid }] = await (await fetch(fleet.url + 'i/web/')).json();
  process.kill(Pid, 'SIGKILL');
  await reaches(page, 'failing');
  // The page reads the probes and the runs after the change.
  await page.waitForFunction(() => document.querySelector('#runs tbody tr') && document.querySelector('#probes li'));
  equal(failed, []);
  equal(await page.evaluate(() => window.pwned ?? null), null);
  equal(page.bad, []);
}

await test('chromium: real kapos, one is killed, the page of one', () => real(chromium));

/* Arguments and STATUS of a real kapo, seen through the fleet. */
async function hostileMember(browser) {
  const path = folder();
  await member(path, 'evil', '--stdout', '--tail', '64K', 'supervise', '--notify', '--', 'python3', '-c', NOTIFIER,
    ATTACKS[0] + ATTACKS[1], ...ATTACKS);
  const fleet = await kapo(['fleet', path]);
  const page = await open(browser, fleet.url + 'i/evil/ui', { before: () => {
    addEventListener('securitypolicyviolation', (event) => {
      if (!event.blockedURI.endsWith('/favicon.ico')) window.violated = event.blockedURI;
    });
  } });
  const failed = failing(page);
  await reaches(page, 'ready');
  await page.waitForFunction((status) => document.getElementById('facts').textContent.includes(status), {}, ATTACKS[0] + ATTACKS[1]);
  const command = await textOf(page, '#command');
  for (const attack of [ATTACKS[0], ATTACKS[1], '\\u{202e}evil\\u{1b}]0;title\\u{7}']) equal([attack, command.includes(attack)], [attack, true]);
  equal(await page.evaluate(() => [window.pwned ?? null, window.violated ?? null, document.querySelectorAll('img').length]), [null, null, 0]);
  equal(failed, []);
  equal(page.bad, []);
}

await test('hostile arguments and STATUS through the fleet (chromium)', () => hostileMember(chromium));

await test('the page of real kapos is accessible and fits', async () => {
  const path = folder();
  await member(path, 'web', 'run', 'sleep', '120');
  await member(path, 'cache', 'run', '--notify', 'sleep', '120');
  await member(path, 'api', '--stdout', '--tail', '4K', 'supervise', '--wait', '60', 'sh', '-c', 'exit 4');
  await member(path, 'import', 'supervise', '--wait', '60', 'true');
  await member(path, 'report', 'run', '--wait', '60', 'true');
  (await member(path, 'db', 'run', 'sleep', '120')).kill('SIGKILL');
  const fleet = await kapo(['fleet', path]);
  const wanted = ['api ✖ failing', 'db ✖ dead', 'cache ◔ unready', 'import ↻ pausing', 'web ✔ running', 'report ■ done'];
  for (const settings of [{}, { dark: true }, { width: 360 }, { width: 360, dark: true }]) {
    for (const [url, ready] of [[fleet.url, live], [fleet.url + 'i/api/ui', (page) => reaches(page, 'failing')]]) {
      const page = await open(chromium, url, settings);
      const failed = failing(page);
      await ready(page);
      if (url === fleet.url) {
        await page.waitForFunction((rows) => [...document.querySelectorAll('#table tbody tr')]
          .map((line) => line.cells[0].textContent + ' ' + line.cells[1].textContent).join() === rows, {}, wanted.join());
      }
      await accessible(page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > (settings.width || 1000)) throw new Error(wide + ' px');
      equal([failed, page.bad], [[], []]);
      await page.close();
    }
  }
});

await test('real kapos: 10,000 names', async () => {
  const [few, path] = [folder(), folder()];
  for (let at = 0; at < 25; at++) await member(few, 'w' + at, 'run', 'sleep', '120');
  // A connection to a second name of a socket reaches the same kapo.
  for (let at = 0; at < MANY; at++) fs.linkSync(few + '/w' + at % 25 + '.sock', path + '/worker-' + at + '.sock');
  const fleet = await kapo(['fleet', path]);
  const page = await open(chromium, fleet.url, { before: observe });
  await live(page);
  await page.waitForFunction(() => window.painted);
  const seen = await page.evaluate(measured);
  console.log('# painted ' + Math.round(seen.took) + ' ms after the data; long tasks: ' + seen.long);
  if (seen.took > 1000) throw new Error(seen.took + ' ms');
  equal(await textOf(page, '#verdict'), 'all 10000 kapos are well');
  await smooth(page, 100);
  equal(page.bad, []);
});

const image = ROOT + '/docs/images/fleet.png';
if (UPDATE_IMAGES) {
  await test('the picture is made', async () => {
    const path = folder();
    for (const [name, ...words] of [
      ['web-1', 'run', '--ttl', '5400', 'sleep', '99'], ['web-2', 'run', '--ttl', '6300', 'sleep', '99'], ['queue', 'run', 'sleep', '99'],
      ['api', 'supervise', '--wait', '60', 'sh', '-c', 'exit 4'], ['mailer', 'supervise', '--wait', '0.1', 'false'],
      ['import', 'supervise', '--wait', '300', 'true'], ['cache', 'run', '--notify', 'sleep', '99'], ['report', 'run', '--wait', '99', 'true'],
      ['backup', 'run', '--wait', '99', 'sh', '-c', 'exit 3'], ['web-3', 'run', 'sleep', '99'], ['metrics', 'run', 'sleep', '99'],
    ]) await member(path, name, ...words);
    (await member(path, 'search', 'run', 'sleep', '99')).kill('SIGKILL');
    const fleet = await kapo(['fleet', path]);
    const page = await open(chromium, fleet.url);
    await page.setViewport({ width: 900, height: 700 });
    await live(page);
    await page.waitForFunction(() => document.querySelector('#table tbody tr').cells[1].textContent.includes('flapping'), { timeout: 15000 });
    await pause(1500);
    await page.screenshot({ path: image });
  });
}
await test('the picture in docs/ is at most 120 KiB', () => {
  const { size } = fs.statSync(image);
  if (size > 120 * 1024) throw new Error(size + ' bytes');
});

await chromium.close();

const firefox = await launch('firefox');
if (firefox) {
  await test('firefox: each state, and changes without a reload', () => smoke(firefox));
  await test('hostile names and reasons are text (firefox)', () => hostile(firefox));
  await test('firefox: real kapos, one is killed, the page of one', () => real(firefox));
  await test('hostile arguments and STATUS through the fleet (firefox)', () => hostileMember(firefox));
  await firefox.close();
}

await finish();
