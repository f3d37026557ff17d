// The tests of ui.sh.

import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { KAPO, LIMITED, ROOT, UPDATE_IMAGES, WORK, accessible, equal, finish, kapo, launch, open, pause, reaches, started, test, textOf, until } from './browser.mjs';

/* A command that does what is written into its folder: `ready`, `say TEXT`, `exit CODE`. */
function puppet(name) {
  const fifo = WORK + '/' + name;
  execFileSync('mkfifo', [fifo]);
  // Opened for both, the FIFO never ends.
  const script = `exec 3<>"$0"; while read -r word rest <&3; do case $word in ready) echo READY;;
    say) printf '%s\\n' "$rest";; exit) exit "$rest";; esac; done`;
  return {
    words: ['sh', '-c', script, fifo],
    // Opening the FIFO waits until the command has opened it.
    tell: (text) => fs.promises.writeFile(fifo, text + '\n'),
  };
}

async function states(name, browser, looks) {
  const control = puppet(name);
  const broken = WORK + '/' + name + '-broken';
  const child = await kapo(['--stdout', '--tail', '64K', 'supervise', '--wait', '1', '--ready-line', 'READY', '--drain', '2',
    '--probe', 'exec:test ! -e ' + broken, '--probe-interval', '0.3', '--unhealthy', 'stop', '--probe-failures', '1000000',
    '--', ...control.words]);
  const page = await open(browser, child.url);
  const reach = (state, action) => test(name + ': ' + state, async () => {
    if (action) await action();
    await reaches(page, state);
    await looks(page, state);
  }, true);
  let seen = 0;
  const runs = async () => {
    const [one] = await (await fetch(child.url)).json();
    return one.Status === 'running' && one.Restarts;
  };
  await reach('starting');
  await reach('ready', () => control.tell('ready'));
  await reach('unhealthy', () => fs.writeFileSync(broken, ''));
  await reach('ready', () => fs.unlinkSync(broken));
  await reach('pausing', () => control.tell('exit 0'));
  await reach('starting');
  await reach('failing', () => control.tell('exit 3'));
  await test(name + ': the runs are listed and the first failure is marked', async () => {
    await page.waitForFunction(() => document.querySelectorAll('#runs tbody tr').length >= 2);
    await page.waitForFunction(() => document.querySelector('#runs tbody').textContent.includes('✖ exit 3 (first failure)'));
    equal(await page.evaluate(() => document.querySelectorAll('#line rect.first').length), 1);
  }, true);
  await reach('flapping', async () => {
    await until('it runs', async () => (seen = await runs()) !== false);
    for (let failed = 0; failed < 3; failed++) {
      await until('it runs', async () => await runs() === seen + failed);
      await control.tell('exit 4');
    }
  });
  await reach('flapping', () => control.tell('ready'));
  await test(name + ': the output is shown and filtered', async () => {
    await control.tell('say one apple');
    await control.tell('say two pears');
    await page.waitForFunction(() => document.getElementById('log').textContent.includes('two pears'));
    await page.type('#filter', 'PEAR');
    await page.waitForFunction(() => document.getElementById('shown').textContent.startsWith('1 of '));
    equal(await page.evaluate(() => [...document.querySelectorAll('#log div')].filter((line) => !line.hidden).map((line) => line.textContent)),
      ['two pears']);
  }, true);
  await reach('draining', () => child.kill('SIGTERM'));
  await reach('lost');
  await child.over;
  await test(name + ': no error, no reload, no other request', () => equal(page.bad, []));
}

const chromium = await launch('chromium');

await states('chromium', chromium, async (page, state) => {
  if (['ready', 'flapping', 'unhealthy'].includes(state)) await accessible(page);
  await page.screenshot({ path: WORK + '/' + state + '.png' });
});

await test('ended: the end of a run is shown while kapo still answers', async () => {
  for (const [code, tone] of [['0', 'off'], ['3', 'bad']]) {
    const control = puppet('ended-' + code);
    const child = await kapo(['run', '--wait', '60', '--', ...control.words]);
    const page = await open(chromium, child.url);
    await reaches(page, 'ready');
    await control.tell('exit ' + code);
    await reaches(page, 'ended');
    equal([await page.evaluate(() => document.getElementById('top').className), await textOf(page, '#verdict')],
      [tone, code === '0' ? 'ended: success' : 'ended: exit 3']);
    child.kill('SIGTERM');
    await page.close();
  }
});

await test('an open page does not keep a kapo with --idle-exit', async () => {
  const control = puppet('idle');
  const child = await kapo(['run', '--idle-exit', '6', '--', ...control.words]);
  const page = await open(chromium, child.url);
  await reaches(page, 'ready');
  await control.tell('exit 0');
  await reaches(page, 'ended');
  await reaches(page, 'lost');
});

await test('lost: a killed kapo is noticed within a second, and a new one is found', async () => {
  const control = puppet('killed');
  const child = await kapo(['run', '--', ...control.words]);
  const page = await open(chromium, child.url);
  await reaches(page, 'ready');
  const before = Date.now();
  child.kill('SIGKILL');
  await reaches(page, 'lost');
  if (Date.now() - before > 1000) throw new Error(Date.now() - before + ' ms');
  const port = new URL(child.url).port;
  const again = spawn(KAPO, ['--interface', '127.0.0.1', '--port', port, '--quiet', 'run', '--', 'sleep', '60'], { stdio: 'ignore' });
  started.push(again);
  await reaches(page, 'ready');
  equal(await textOf(page, '#name'), 'sleep');
  await page.close();
});

await test('watch: processes are a table', async () => {
  const name = 'kapo-ui-' + process.pid;
  const child = await kapo(['watch', name]);
  const page = await open(chromium, child.url);
  await reaches(page, 'ended');
  fs.copyFileSync('/bin/sleep', WORK + '/' + name);
  fs.chmodSync(WORK + '/' + name, 0o755);
  const two = [1, 2].map(() => spawn(WORK + '/' + name, ['60'], { stdio: 'ignore' }));
  await page.waitForFunction(() => document.getElementById('verdict').textContent === '2 processes', { timeout: 15000 });
  equal(await page.evaluate(() => [...document.querySelectorAll('#processes tbody tr td:first-child')].map((cell) => Number(cell.textContent))),
    two.map((process) => process.pid).sort((a, b) => a - b));
  await accessible(page);
  for (const process of two) process.kill();
  await reaches(page, 'ended');
  equal(page.bad, []);
  await page.close();
});

const ATTACKS = ['<script>window.pwned=1;alert(1)</script>', '<img src=x onerror="window.pwned=2">', '"><svg onload=window.pwned=3>',
  "';window.pwned=4;'", '</pre></script><script>window.pwned=5</script>', '\u202eevil\x1b]0;title\x07 \x1b[31mred\x1b[0m',
  '{{constructor.constructor("window.pwned=6")()}}', 'javascript:window.pwned=7', '<a href="javascript:window.pwned=8">x</a>'];

async function hostile(browser) {
  const script = `
import os, socket, sys, time
attacks = sys.argv[1:]
def notify(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    a = os.environ["NOTIFY_SOCKET"]
    s.connect("\\0" + a[1:] if a[0] == "@" else a)
    s.send(text.encode())
out = sys.stdout.buffer
out.write(b"<b>" * 350000 + b"\\n")
out.write(b"\\xff\\xfe\\x00 bytes\\n")
for attack in attacks:
    out.write(attack.encode() + b"\\n")
out.write(b"<script>" * 100000)
out.flush()
notify("READY=1\\nSTATUS=" + attacks[0] + attacks[1] + attacks[2])
time.sleep(600)
`;
  const child = await kapo(['--stdout', '--tail', '1M', 'supervise', '--notify', '--name', 'hostile', '--', 'python3', '-c', script, ...ATTACKS]);
  const page = await open(browser, child.url, { before: () => {
    addEventListener('securitypolicyviolation', (event) => {
      if (!event.blockedURI.endsWith('/favicon.ico')) window.violated = event.blockedURI + ' ' + event.violatedDirective;
    });
  } });
  await reaches(page, 'ready');
  await page.waitForFunction(() => document.getElementById('log').textContent.includes('<script><script>'), { timeout: 15000 });
  await page.waitForFunction(() => document.getElementById('facts').textContent.includes('<img src=x'));
  const seen = await page.evaluate(() => ({
    pwned: window.pwned, violated: window.violated, title: document.title,
    elements: ['script', 'img', 'svg', 'iframe', 'b'].map((name) => document.querySelectorAll(name).length +
      document.querySelectorAll('#log ' + name + ', #command ' + name + ', #facts ' + name).length),
    command: document.getElementById('command').textContent, status: document.getElementById('facts').textContent,
    longest: Math.max(...[...document.querySelectorAll('#log div')].map((line) => line.textContent.length)),
  }));
  equal([seen.pwned, seen.violated], [undefined, undefined]);
  equal(seen.elements.slice(0, 4), [2, 0, 3, 0]);
  for (const attack of ATTACKS.slice(0, 5)) {
    if (!seen.command.includes(attack)) throw new Error(attack + ' is not in the command');
  }
  if (!seen.command.includes('\\u{202e}evil\\u{1b}]0;title\\u{7}')) throw new Error(seen.command);
  if (!seen.status.includes(ATTACKS[1])) throw new Error(seen.status);
  if (seen.longest > 4097) throw new Error('a line of ' + seen.longest + ' characters');
  equal(page.bad, []);
  child.kill('SIGTERM');
  await page.close();
}

await test('hostile arguments, STATUS and output are text (chromium)', () => hostile(chromium));

await test('hidden arguments are not in the page', async () => {
  const child = await kapo(['--hide-args', 'run', '--', 'sh', '-c', 'sleep 60 # secret-word']);
  const page = await open(chromium, child.url);
  await reaches(page, 'ready');
  equal([await page.evaluate(() => document.documentElement.textContent.includes('secret-word')), await textOf(page, '#command')],
    [false, 'sh']);
  await page.goto(child.url + 'ui?static');
  equal(await page.evaluate(() => document.documentElement.textContent.includes('secret-word')), false);
  await page.close();
});

await test('a flood of output leaves the page usable', async () => {
  const child = await kapo(['--stdout', '--tail', '64K', 'run', '--', 'sh', '-c', 'while :; do seq 1 200000; sleep 0.2; done']);
  const page = await open(chromium, child.url);
  await reaches(page, 'ready');
  await pause(3000);
  const before = Date.now();
  await page.type('#filter', '199999');
  await page.waitForFunction(() => document.getElementById('shown').textContent.includes(' of '), { timeout: 15000 });
  if (Date.now() - before > 5000) throw new Error(Date.now() - before + ' ms');
  const count = await page.evaluate(() => document.querySelectorAll('#log div').length);
  if (count > 1001) throw new Error(count + ' lines');
  // kapo may have ended a stream that was too far behind; the page then begins another one.
  await page.evaluate(() => { document.getElementById('log').replaceChildren(); });
  await page.waitForFunction(() => document.querySelectorAll('#log div').length > 100, { timeout: 15000 });
  child.kill('SIGKILL');
  await page.close();
});

fs.writeFileSync(WORK + '/server', `#!/usr/bin/env python3
import sys, time
print("serving on port 8080", flush=True)
kept = []
for n in range(1, 10000):
    kept.append(bytearray(b"x" * (1000000 * (n % 7))))
    t = time.time()
    while time.time() - t < 0.02 * (n % 9): pass
    print(f"2026-11-28T01:02:{n % 60:02}Z GET /jobs/{n * 7919 % 1000} {200 if n % 11 else 500}", flush=True)
    if sum(map(len, kept)) > 180000000: sys.exit("MemoryError: cannot allocate the cache")
    time.sleep(0.6)
`, { mode: 0o755 });
const busy = await kapo(['--stdout', '--stderr', '--tail', '64K', 'supervise', '--wait', '5', '--max-restarts', '1000000',
  '--within', '3600', '--', './server', '--cache', '180M'], LIMITED || KAPO);

for (const [name, settings] of [['light', {}], ['dark', { dark: true }], ['narrow', { width: 360 }], ['narrow and dark', { width: 360, dark: true }]]) {
  await test('the page is accessible and fits: ' + name, async () => {
    const page = await open(chromium, busy.url, settings);
    await reaches(page, 'ready');
    await page.waitForFunction(() => document.querySelectorAll('#log div').length > 1 && document.querySelector('#probes li'));
    await accessible(page);
    const width = settings.width || 1000;
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) throw new Error(wide + ' px');
    await page.screenshot({ path: WORK + '/' + name + '.png', fullPage: true });
    equal(page.bad, []);
    await page.close();
  });
}

await test('the keyboard reaches the filter, the output and the links', async () => {
  const page = await open(chromium, busy.url);
  await reaches(page, 'ready');
  await page.waitForFunction(() => document.querySelector('#probes li'));
  const reached = new Set();
  for (let step = 0; step < 30; step++) {
    await page.keyboard.press('Tab');
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute('href')));
  }
  for (const wanted of ['filter', 'log', 'status.json', 'metrics', 'readyz?verbose']) {
    if (!reached.has(wanted)) throw new Error('not ' + wanted + ', but ' + [...reached]);
  }
  await page.close();
});

await test('a hidden page requests nothing but events', async () => {
  const page = await open(chromium, busy.url);
  await reaches(page, 'ready');
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { get: () => true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  await pause(600);
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  await pause(6000);
  equal(requests, []);
  await page.close();
});

await test('without scripts the page leads to the plain one', async () => {
  const page = await chromium.newPage();
  await page.setJavaScriptEnabled(false);
  await page.goto(busy.url);
  await until('it has been led there', () => page.url().endsWith('/ui?static'));
  await until('it is shown', async () => (await page.content()).includes('<h1>server: running for '));
  await page.close();
});

await test('the page works below a prefix', async () => {
  const paths = [];
  const proxy = http.createServer((request, answer) => {
    paths.push(request.url);
    if (!request.url.startsWith('/i/x/')) return answer.writeHead(404).end();
    const onward = http.request(new URL(request.url.slice(4), busy.url), { headers: request.headers }, (from) => {
      answer.writeHead(from.statusCode, from.headers);
      from.pipe(answer);
    });
    answer.on('close', () => onward.destroy());
    onward.on('error', () => answer.destroy());
    onward.end();
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  for (const path of ['i/x/ui', 'i/x/']) {
    const page = await open(chromium, 'http://127.0.0.1:' + proxy.address().port + '/' + path);
    await reaches(page, 'ready');
    await page.waitForFunction(() => document.querySelectorAll('#log div').length && document.querySelector('#probes li'));
    equal(page.bad, []);
    await page.close();
  }
  equal(paths.filter((path) => !path.startsWith('/i/x/')), []);
  proxy.closeAllConnections();
  proxy.close();
});

await test('text browsers show the plain page', async () => {
  for (const [program, ...words] of [['lynx', '-dump'], ['w3m', '-dump']]) {
    let text;
    try {
      text = execFileSync(program, [...words, busy.url + 'ui'], { encoding: 'utf8' });
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
      console.log('# ' + program + ': left out');
      continue;
    }
    if (!/server: running for .*\n[^]*state +running since [^]*last output:\n/.test(text)) throw new Error(text);
  }
});

const image = ROOT + '/docs/images/ui.png';
if (UPDATE_IMAGES) {
  await test('the picture is made', async () => {
    const page = await open(chromium, busy.url, { width: 800 });
    await pause(100000);
    await reaches(page, 'ready');
    fs.mkdirSync(ROOT + '/docs/images', { recursive: true });
    await page.screenshot({ path: image, clip: { x: 0, y: 0, width: 800, height: 960 } });
    await page.close();
  });
}
await test('the picture in docs/ is at most 120 KiB', () => {
  const { size } = fs.statSync(image);
  if (size > 120 * 1024) throw new Error(size + ' bytes');
});

await chromium.close();

const firefox = await launch('firefox');
if (firefox) {
  await states('firefox', firefox, async () => {});
  await test('hostile arguments, STATUS and output are text (firefox)', () => hostile(firefox));
  await firefox.close();
}

await finish();
