'use strict';
/* The page of one kapo. It keeps no history of kapo: /events gives the state, /runs the ended runs, /metrics the usage,
   and /logs?follow=1 the output. */

/* Returns an element whose text is updated by tick(). */
function ticking(text) {
  const element = make('span', text());
  element.ticking = text;
  element.dataset.tick = '';
  return element;
}

const until = (at) => span(Math.ceil((at - now()) / SECOND) * SECOND);

function ordinal(number) {
  const tens = number % 100, ones = number % 10;
  return number + (tens > 10 && tens < 14 ? 'th' : ['th', 'st', 'nd', 'rd'][ones] || 'th');
}

const sender = (from) => from.Signal + ' from ' +
  (from.Pid > 0 ? 'pid ' + from.Pid + ', uid ' + from.Uid : 'the kernel or another PID namespace');

const failed = (run) => run.Reason !== '' && run.Reason !== 'success' && run.Reason !== 'timeout';

/* Returns the state, its colour, its symbol and the verdict. */
function judge(objects) {
  const one = objects[0];
  if (one.Mode === 'watch') {
    const count = objects.filter((object) => object.Status === 'running').length;
    const last = one.LastRun ? ', last end: ' + ended(one.LastRun) : '';
    return count ? ['ready', 'good', '✔', count + (count === 1 ? ' process' : ' processes')]
      : ['ended', 'bad', '✖', 'no process' + last];
  }
  const last = one.LastRun && (one.LastRun.Reason === 'success' ? ', last end: ' : ', last ') + ended(one.LastRun) || '';
  const restarted = one.Restarts ? ', restarted ' + (one.Restarts === 1 ? 'once' : one.Restarts + ' times') + last : '';
  if (one.Status === 'running') {
    if (time(one.StopsAt)) return ['draining', 'wait', '⇣', 'draining before the stop signal'];
    if (!one.Ready && one.StopSignalFrom) return ['stopping', 'wait', '⇣', 'being stopped by ' + sender(one.StopSignalFrom)];
    const expires = time(one.ExpiresAt);
    if (!one.Ready && expires && expires <= now()) return ['stopping', 'wait', '⇣', 'being stopped by its TTL'];
    const sick = (one.Probes || []).find((probe) => !probe.Up && probe.Failures);
    if (sick) return ['unhealthy', 'bad', '✖', 'running, not healthy: ' + shown(sick.Reason) + restarted];
    if (one.Flapping) return ['flapping', 'warn', '⚠', (one.Ready ? 'flapping, running' : 'flapping, not ready') + restarted];
    if (!one.Ready) return ['starting', 'wait', '◔', 'running, not ready' + restarted];
    return ['ready', 'good', '✔', 'running' + restarted];
  }
  const bad = failed(one);
  if (time(one.NextStart)) {
    const text = 'restarting for the ' + ordinal(one.Restarts + 1) + ' time' + last;
    if (one.Flapping) return ['flapping', 'bad', '⚠', 'flapping, ' + text];
    return bad ? ['failing', 'bad', '✖', text] : ['pausing', 'wait', '↻', text];
  }
  if (!one.Reason) return ['starting', 'wait', '◔', 'not started yet'];
  return ['ended', bad ? 'bad' : 'off', bad ? '✖' : '■', 'ended: ' + ended(one)];
}

/* ---- The state ---- */

/* The last document. */
let objects = null;
let runs = [], runsText = '';

function nameOf(object) {
  return object.Name || object.Command.split('/').filter(Boolean).pop() || object.Command;
}

function show() {
  const top = $('top');
  let [state, tone, symbol, verdict] = objects ? judge(objects) : ['starting', 'wait', '…', 'connecting'];
  if (lost) {
    verdict = 'kapo has not answered since ' + moment(lost) + (objects ? '; last known: ' + verdict : '');
    [state, tone, symbol] = ['lost', 'bad', '?'];
  }
  top.dataset.state = state;
  top.className = tone;
  write($('symbol'), symbol);
  write($('verdict'), verdict);
  if (!objects) return;
  const one = objects[0], watch = one.Mode === 'watch';
  const name = nameOf(one);
  write($('name'), name);
  document.title = symbol + ' ' + name + ': ' + (lost ? 'no answer' : state);
  write($('command'), [one.Command, ...(one.Arguments || [])].map(shown).join(' '));
  showFacts(one, watch);
  $('processes').hidden = !watch;
  if (watch) showProcesses();
  showRuns(one, watch);
}

function showFacts(one, watch) {
  const rows = [];
  const row = (label, ...parts) => rows.push(make('dt', label), make('dd', parts));
  const running = one.Status === 'running';
  const since = time(running ? one.StartTime : one.EndTime);
  const next = time(one.NextStart), stops = time(one.StopsAt), expires = time(one.ExpiresAt);
  if (since && !watch) {
    row(running ? 'running since' : 'ended', moment(since), ' (', ticking(() => ago(since)), running ? ')' : ' ago)');
  }
  if (next) row('next start', 'in ', ticking(() => until(next)), ', at ' + moment(next));
  if (stops) row('stop signal', 'in ', ticking(() => until(stops)), ', at ' + moment(stops));
  if (expires) row('TTL', 'ends the run in ', ticking(() => until(expires)), ', at ' + moment(expires));
  if (!watch) row('restarts', one.Restarts + (one.Flapping ? ', flapping' : ''));
  if (one.Pid && !watch) row('PID', '' + one.Pid);
  if (one.StopSignalFrom) row('stop', 'asked for by ' + sender(one.StopSignalFrom));
  if (one.StatusText) row('status', shown(one.StatusText));
  if (one.SidebindPort) row('second port', '' + one.SidebindPort);
  $('facts').replaceChildren(...rows);
}

/* The most processes of `kapo watch` that are shown. */
const PROCESSES = 500;

function showProcesses() {
  const rows = objects.filter((object) => object.Pid).slice(0, PROCESSES).map((object) => {
    const start = time(object.StartTime);
    return make('tr', [make('td', '' + object.Pid), make('td', object.Status), make('td', moment(start)),
      make('td', [ticking(() => ago(start))])]);
  });
  $('processes').querySelector('tbody').replaceChildren(...rows);
}

/* ---- The runs ---- */

let runsShown = '';

function showRuns(one, watch) {
  const running = one.Status === 'running' && !watch;
  const list = runs.length || !one.LastRun ? runs : [one.LastRun];
  $('runs').hidden = !list.length && !running;
  // An unchanged table stays, so that an opened output of a run stays open.
  const key = runsText + running + one.StartTime + list.length;
  if (key === runsShown) return;
  runsShown = key;
  const rows = list.map((run) => {
    const bad = failed(run);
    const why = [make('b', (bad ? '✖ ' : '✔ ') + (cause(run) || 'exit ' + run.ExitCode), bad ? 'bad' : 'good')];
    if (run.First) why.push(make('strong', ' (first failure)'));
    if (run.LastOutput && run.LastOutput.length) {
      why.push(make('details', [make('summary', 'output'), make('pre', run.LastOutput.map(shown).join('\n'))]));
    }
    const from = run.StopSignalFrom;
    return make('tr', [make('td', moment(time(run.EndTime))), make('td', span(run.LastedSeconds * SECOND)),
      make('td', '' + run.ExitCode), make('td', why), make('td', from ? sender(from) : '–')]);
  });
  if (running) {
    const start = time(one.StartTime);
    rows.unshift(make('tr', [make('td', '–'), make('td', [ticking(() => ago(start))]), make('td', '–'),
      make('td', [make('b', '▶ running', 'wait')]), make('td', '–')]));
  }
  $('runs').querySelector('tbody').replaceChildren(...rows);
  shownRuns = [list, running ? time(one.StartTime) : 0];
  drawLine();
}

/* The runs of the time line, and since when the present run lasts (0: none). */
let shownRuns = [[], 0];

/* Draws the runs on one axis, up to now if a run lasts. */
function drawLine() {
  const [list, start] = shownRuns;
  const bars = list.map((run) => [time(run.StartTime), time(run.EndTime), failed(run) ? 'bad' : 'good', run.First]);
  if (start) bars.push([start, now(), 'wait', false]);
  if (!bars.length) return;
  const first = Math.min(...bars.map((bar) => bar[0])), last = Math.max(...bars.map((bar) => bar[1]), first + 1);
  const place = (at) => (at - first) / (last - first) * 990;
  $('line').replaceChildren(...bars.map(([from, to, tone, marked]) => {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    const attributes = { x: place(from), width: Math.max(4, place(to) - place(from)), y: marked ? 1 : 5,
      height: marked ? 22 : 14, class: tone + (marked ? ' first' : '') };
    for (const name in attributes) bar.setAttribute(name, attributes[name]);
    return bar;
  }));
  const [left, right] = $('axis').children;
  write(left, moment(first));
  write(right, start ? 'now' : moment(last));
}

/* ---- Probes and ended runs, after each change ---- */

async function showProbe(path) {
  const answer = await get(path + '?verbose');
  const checks = (await answer.text()).trim().split('\n').slice(0, -1).map((line) => {
    const good = line.startsWith('[+]');
    const text = shown(line.slice(3).replace(/ (ok|failed)(: restarting in \d+ s)?/, good ? '' : ''));
    return (good ? '✔ ' : '✖ ') + text;
  });
  const item = make('li', [make('b', answer.ok ? '✔ ' : '✖ ', answer.ok ? 'good' : 'bad'), make('a', path),
    (answer.ok ? ' passes: ' : ' fails: ') + checks.join(', ')]);
  item.querySelector('a').href = path + '?verbose';
  return item;
}

let busy = false, again = false;

async function refresh() {
  if (document.hidden) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    const [history, ...probes] = await Promise.all([get('runs'), showProbe('readyz'), showProbe('healthz')]);
    const text = await history.text();
    runsText = history.ok ? text : '';
    runs = history.ok ? JSON.parse(text) : [];
    $('probes').replaceChildren(...probes);
    show();
  } catch (error) {
    // The connection is lost, which EventSource reports.
  }
  setTimeout(() => {
    busy = false;
    if (again) {
      again = false;
      refresh();
    }
  }, SECOND / 2);
}

/* ---- Memory and CPU ---- */

const SAMPLES = 120, PAUSE = 5 * SECOND;
const METRICS = 'metrics?' + ['kapo_child_cpu_seconds_total', 'kapo_child_resident_memory_bytes',
  'kapo_cgroup_memory_bytes', 'kapo_cgroup_memory_limit_bytes', 'kapo_cgroup_cpu_limit_cores', 'kapo_child_processes']
  .map((name) => 'name[]=' + name).join('&');
const samples = [];

async function measure() {
  if (document.hidden || lost) return;
  // After the end, requests would keep a kapo with --idle-exit running.
  if (objects && objects[0].Mode === 'run' && objects[0].Reason) return;
  // kapo checks its command only if a request needs the result.
  if (objects && objects[0].Probes) refresh();
  try {
    const text = await (await get(METRICS)).text();
    const value = (name) => {
      const found = text.match(new RegExp('^kapo_' + name + '(?:\\{.*\\})? (\\S+)', 'm'));
      return found ? Number(found[1]) : null;
    };
    const at = Date.now(), before = samples[samples.length - 1];
    const sample = { at, total: value('child_cpu_seconds_total'), limit: value('cgroup_memory_limit_bytes'),
      cores: value('cgroup_cpu_limit_cores'), cpu: null, own: value('child_resident_memory_bytes'),
      all: value('cgroup_memory_bytes') };
    if (before && before.total !== null && sample.total !== null && at - before.at < 4 * PAUSE) {
      sample.cpu = Math.max(0, (sample.total - before.total) * SECOND / (at - before.at));
    }
    samples.push(sample);
    if (samples.length > SAMPLES) samples.shift();
    showUsage(sample);
  } catch (error) {
    // As in refresh().
  }
}

/* Draws one plot: the values of the last minutes, and the limit if there is one. */
function plot(svg, value, limit) {
  const last = samples[samples.length - 1].at, range = Math.max(MINUTE, last - samples[0].at);
  const most = limit || Math.max(...samples.map(value)) * 1.25 || 1;
  const x = (sample) => (300 - (last - sample.at) / range * 300).toFixed(1);
  const y = (number) => (60 - Math.min(1, number / most) * 56).toFixed(1);
  let path = '', from = null, to = null;
  const close = () => from && (path += 'V60H' + x(from) + 'Z');
  for (const sample of samples) {
    if (value(sample) === null || to && sample.at - to.at > 4 * PAUSE) {
      close();
      from = null;
    }
    if (value(sample) !== null) {
      path += (from ? 'L' : 'M') + x(sample) + ' ' + y(value(sample));
      from = from || sample;
      to = sample;
    }
  }
  close();
  svg.querySelector('.area').setAttribute('d', path);
  svg.querySelector('.limit').setAttribute('d', limit ? 'M0 ' + y(limit) + 'H300' : '');
}

function showUsage(sample) {
  const { own, all, limit, cpu, cores } = sample;
  const known = limit && all !== null;
  plot($('memory'), known ? (sample) => sample.all : (sample) => sample.own, known ? limit : 0);
  plot($('cpu'), (sample) => sample.cpu, cores);
  write($('range'), 'of the last ' + span(Math.max(MINUTE, Math.round((sample.at - samples[0].at) / MINUTE) * MINUTE)));
  write($('c-memory'), 'memory: ' + (own === null ? 'no process' : bytes(own)) +
    (known ? '; cgroup ' + bytes(all) + ' of ' + bytes(limit) : '; no limit'));
  write($('c-cpu'), 'CPU: ' + (cpu === null ? '–' : (cpu * 100).toFixed(cpu < .1 ? 1 : 0) + ' %') +
    (cores ? ' of ' + cores * 100 + ' %' : ''));
}

/* ---- The output ---- */

/* The most lines that are kept, and the most characters of a line that are shown. */
const LINES = 1000, LONGEST = 4096;
let following = null, fresh = [], part = '', planned = false;

/* Adds a piece of output. Only the last lines are kept before they are shown. */
function add(text) {
  const lines = (part + text).split('\n');
  part = lines.pop();
  // Of an unfinished line, only what will be shown is kept.
  if (part.length > LONGEST) part = part.slice(0, LONGEST + 1);
  fresh = fresh.concat(lines).slice(-LINES);
  if (!planned) {
    planned = true;
    requestAnimationFrame(showLines);
  }
}

function lineElement(text) {
  text = text.replace(/\r$/, '').replace(/\x1b\[[0-9;]*[mK]/g, '');
  const long = text.length > LONGEST;
  return make('div', shown(text.slice(0, LONGEST)) + (long ? '…' : ''));
}

function showLines() {
  planned = false;
  const log = $('log'), old = $('part');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (old) old.remove();
  log.append(...fresh.map(lineElement));
  fresh = [];
  while (log.children.length > LINES) log.firstChild.remove();
  if (part) {
    const last = lineElement(part);
    last.id = 'part';
    log.append(last);
  }
  filter();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function filter() {
  const wanted = $('filter').value.toLowerCase(), lines = $('log').children;
  let count = 0;
  for (const line of lines) {
    line.hidden = !line.textContent.toLowerCase().includes(wanted);
    count += !line.hidden;
  }
  write($('shown'), wanted ? count + ' of ' + lines.length + ' lines' : '');
}

async function follow() {
  if (following || lost || document.hidden) return;
  const control = following = new AbortController();
  try {
    const answer = await fetch('logs?follow=1', { signal: control.signal, cache: 'no-store' });
    $('log').replaceChildren();
    [fresh, part] = [[], ''];
    if (!answer.ok) {
      add(await answer.text());
      return;
    }
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      add(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    // Aborted, or the connection is lost.
  }
  if (following !== control) return;
  // kapo ends the stream of a reader that is too slow.
  following = null;
  if (!lost) setTimeout(follow, SECOND);
}

function unfollow() {
  if (following) following.abort();
  following = null;
}

/* ---- The connection ---- */

let source = null, due = 0;

function connect() {
  source = new EventSource('events');
  source.addEventListener('open', () => {
    lost = 0;
    follow();
    refresh();
    measure();
  });
  source.addEventListener('status', (event) => {
    objects = JSON.parse(event.data);
    // Several changes at once are shown together.
    due = due || setTimeout(() => {
      due = 0;
      show();
      refresh();
    }, 30);
  });
  source.addEventListener('error', () => {
    lost = lost || now();
    unfollow();
    show();
    // EventSource connects again by itself, but not after an answer such as 502 of a proxy.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3 * SECOND);
  });
}

function tick() {
  if (document.hidden) return;
  for (const element of document.querySelectorAll('[data-tick]')) write(element, element.ticking());
  if (shownRuns[1]) drawLine();
}

$('filter').addEventListener('input', filter);
document.addEventListener('visibilitychange', () => {
  // A hidden page keeps only /events, for its title. Browsers allow six connections to a server.
  if (document.hidden) {
    unfollow();
  } else {
    tick();
    refresh();
    measure();
    follow();
  }
});
setInterval(tick, SECOND);
setInterval(measure, PAUSE);
connect();
