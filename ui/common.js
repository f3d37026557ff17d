'use strict';
/* What both pages need. All addresses are relative, so that the pages work below a prefix of a proxy. All text of
   commands is set by textContent. */

const $ = (id) => document.getElementById(id);
const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/* ---- Elements ---- */

/* Returns an element with a text or with children. */
function make(tag, content, name) {
  const element = document.createElement(tag);
  if (Array.isArray(content)) element.append(...content);
  else element.textContent = content;
  if (name) element.className = name;
  return element;
}

/* Sets a text only if it differs, because a screen reader may read a live region again after each change. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/* ---- Words, as those of `kapo status` ---- */

/* The clock of kapo minus the clock of the browser. */
let skew = 0;
const now = () => Date.now() + skew;

/* Returns a time in milliseconds; 0 if there is none. */
const time = (text) => !text || text.startsWith('0001') ? 0 : Date.parse(text.replace(/(\.\d{3})\d+/, '$1')) || 0;

const moment = (at) => new Date(at).toISOString().slice(0, 19).replace('T', ' ') + 'Z';

function span(ms) {
  const two = (unit, name, part, small) => {
    const rest = Math.floor(ms % unit / part);
    return Math.floor(ms / unit) + name + (rest ? ' ' + rest + small : '');
  };
  if (ms <= 0) return '0 s';
  if (ms < SECOND / 10) return Math.max(1, Math.floor(ms)) + ' ms';
  if (ms < 10 * SECOND) return Math.floor(ms / 100) / 10 + ' s';
  if (ms < MINUTE) return Math.floor(ms / SECOND) + ' s';
  if (ms < HOUR) return two(MINUTE, ' min', SECOND, ' s');
  if (ms < DAY) return two(HOUR, ' h', MINUTE, ' min');
  return two(DAY, ' d', HOUR, ' h');
}

/* A state that lasts is shown in whole seconds, because it is updated once a second. */
const ago = (at) => span(Math.floor((now() - at) / SECOND) * SECOND);

function bytes(number) {
  let unit = 0;
  while (number >= 1024 && unit < 4) {
    number /= 1024;
    unit++;
  }
  return (number < 10 ? Math.floor(number * 10) / 10 : Math.floor(number)) + ' ' + ['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit];
}

const REASONS = {
  'oom-kill': 'killed for want of memory',
  timeout: 'ended by its TTL',
  watchdog: 'ended by its watchdog',
  silent: 'stopped because it printed nothing',
  unhealthy: 'stopped because its probes failed',
  'exec-failed': 'could not be executed',
};

function killed(run) {
  const memory = run.Memory;
  let text = 'killed by ' + (run.Signal || 'a signal');
  if (run.Signal === 'SIGKILL' && memory && memory.PeakBytes) {
    text += '; memory peak ' + bytes(memory.PeakBytes) + (memory.LimitBytes ? ' of ' + bytes(memory.LimitBytes) : ', no limit');
  }
  return text;
}

/* Returns why a run ended. */
function cause(run) {
  switch (run.Reason) {
    case 'success': return run.ExitCode ? 'counts as success' : 'success';
    case 'exit-code': case '': return '';
    case 'signal': return killed(run);
    case 'core-dump': return killed(run) + ', core dumped';
    default: return REASONS[run.Reason] || run.Reason;
  }
}

function ended(run) {
  const why = cause(run);
  if (why === 'success') return why;
  return 'exit ' + run.ExitCode + (why && ': ' + why);
}

/* Makes control characters visible, which could otherwise change the order or the place of other text. */
const shown = (text) => text.replace(/[\0-\x08\n-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (c) => c === '\n' ? '\\n' : '\\u{' + c.charCodeAt(0).toString(16) + '}');

/* ---- The connection ---- */

/* When the connection was lost (0: connected). */
let lost = 0;

async function get(path, accept = 'application/json, text/plain') {
  const answer = await fetch(path, { headers: { Accept: accept }, cache: 'no-store' });
  const date = Date.parse(answer.headers.get('Date'));
  // The Date field has whole seconds. Smaller differences do not matter.
  const off = date + 500 - Date.now();
  skew = Math.abs(off) > 2 * SECOND ? off : 0;
  return answer;
}
