'use strict';
/* The page of `kapo fleet`. `/` gives the rows, /events those that have changed. Only the rows in sight are elements. */

/* The states as `kapo ls` sorts them: symbol, colour, and whether the kapo is well. */
const STATES = {
  flapping: ['⚠', 'warn'],
  failing: ['✖', 'bad'],
  failed: ['✖', 'bad'],
  gone: ['✖', 'bad'],
  stuck: ['✖', 'bad'],
  dead: ['✖', 'bad'],
  denied: ['⚠', 'warn'],
  foreign: ['⚠', 'warn'],
  starting: ['◔', 'wait'],
  unready: ['◔', 'wait', 1],
  stopping: ['⇣', 'wait', 1],
  pausing: ['↻', 'wait', 1],
  running: ['✔', 'good', 1],
  done: ['■', 'off', 1],
};
const NAMES = Object.keys(STATES);

/* The head of each column, and the direction in which its first click sorts. The values are those of take(). */
const COLUMNS = [['Name', 1], ['State', 1], ['Since', -1], ['Restarts', -1], ['Last end', 1], ['Memory', -1], ['Owner', 1]];

/* All rows by socket, the same sorted, those that pass the filter, and those that have changed since the last frame. */
let known = new Map(), all = [], list = [];
const changed = new Map(), lines = new Map(), counts = {}, pressed = new Set();
let loading = null, planned = false, stale = false, bad = 0, column = 1, direction = 1, height = 32;

/* ---- The rows ---- */

/* Adds, replaces or removes a row. */
function take(row) {
  const old = known.get(row.Socket);
  if (row.State === 'removed') {
    if (old) old.gone = true;
    known.delete(row.Socket);
    return;
  }
  row.name = shown(row.Name);
  row.since = time(row.Pid ? row.StartTime : row.EndTime);
  row.last = row.Reason ? shown(ended(row)) : '';
  // Numbers in names are compared by value.
  row.values = [row.name.replace(/\d+/g, (digits) => digits.padStart(20, '0')), NAMES.indexOf(row.State), row.since, row.Restarts,
    row.last, row.Memory || 0, row.Uid ?? -1];
  row.text = (row.name + '\n' + row.State + '\n' + row.last).toLowerCase();
  if (old) {
    Object.assign(old, row);
  } else {
    known.set(row.Socket, row);
    all.push(row);
  }
}

const compare = (a, b, at) => a.values[at] < b.values[at] ? -1 : +(a.values[at] > b.values[at]);
const order = (a, b) => compare(a, b, column) * direction || compare(a, b, 1) || compare(b, a, 2) || compare(a, b, 0);

/* Sorts and filters. An almost sorted list is sorted quickly. */
function arrange() {
  const wanted = $('filter').value.toLowerCase();
  all = all.filter((row) => !row.gone).sort(order);
  list = all.filter((row) => (!pressed.size || pressed.has(row.State)) && row.text.includes(wanted));
  for (const name of NAMES) counts[name] = 0;
  bad = 0;
  for (const row of all) {
    counts[row.State]++;
    bad += !(STATES[row.State] || '')[2];
  }
  for (const name of NAMES) {
    const button = $('state-' + name);
    button.hidden = !counts[name] && !pressed.has(name);
    write(button, STATES[name][0] + ' ' + counts[name] + ' ' + name);
  }
  write($('shown'), list.length < all.length ? list.length + ' of ' + all.length + ' shown' : '');
  $('table').setAttribute('aria-rowcount', list.length + 1);
}

function verdict() {
  const count = all.length;
  let [tone, symbol, text] = bad ? ['bad', '✖', bad + ' of ' + count + (count === 1 ? ' kapo is' : ' kapos are') + ' not well']
    : count ? ['good', '✔', count === 1 ? 'the only kapo is well' : 'all ' + count + ' kapos are well'] : ['off', '■', 'no socket in the folder'];
  if (lost) {
    text = 'no answer since ' + moment(lost) + (known.size ? '; last known: ' + text : '');
    [tone, symbol] = ['bad', '?'];
  }
  $('top').dataset.state = lost ? 'lost' : loading ? 'wait' : 'live';
  if (loading && !lost) return;
  $('top').className = tone;
  $('box').className = lost ? 'lost' : '';
  write($('symbol'), symbol);
  write($('verdict'), text);
  document.title = symbol + ' ' + location.host + ': ' + (lost ? 'no answer' : bad ? bad + ' not well' : 'well');
}

/* ---- The elements ---- */

function line() {
  const row = make('tr', COLUMNS.map(() => make('td', '')));
  row.cells[0].append(make('a', ''));
  row.cells[1].append(make('b', ''));
  return row;
}

/* Returns the element of a row, with its present content. */
function element(row, index) {
  let found = lines.get(row.Socket);
  if (!found) lines.set(row.Socket, found = line());
  const { cells } = found, link = cells[0].firstChild, state = cells[1].firstChild;
  const [symbol, tone] = STATES[row.State] || '?';
  write(link, row.name);
  link.title = row.name;
  link.href = 'i/' + encodeURIComponent(row.Name) + '/ui';
  write(state, symbol + ' ' + row.State);
  state.className = tone;
  [row.since ? ago(row.since) : '–', row.Command ? row.Restarts : '–', row.last || '–', row.Memory ? bytes(row.Memory) : '–',
    row.Uid === null ? '–' : 'uid ' + row.Uid].forEach((text, at) => write(cells[at + 2], '' + text));
  cells[2].title = row.since ? moment(row.since) : '';
  cells[4].title = row.last;
  found.setAttribute('aria-rowindex', index + 2);
  return found;
}

function gap(rows) {
  const row = make('tr', [make('td', '')], 'gap');
  row.setAttribute('aria-hidden', true);
  row.firstChild.colSpan = COLUMNS.length;
  row.firstChild.style.height = rows * height + 'px';
  return row;
}

/* Shows the changes and the rows in sight. */
function draw() {
  planned = false;
  const box = $('box'), body = $('table').tBodies[0];
  if (changed.size && !loading || stale) {
    // What is read stays in its place. The top shows what comes there.
    const top = Math.floor(box.scrollTop / height);
    const at = list.findIndex((row, index) => index >= top && !changed.has(row.Socket)), anchor = list[at];
    if (!loading) {
      changed.forEach(take);
      changed.clear();
    }
    arrange();
    const moved = stale || !top ? 0 : list.indexOf(anchor) - at;
    stale = false;
    if (moved && anchor && !anchor.gone) {
      // The height must be there before the place.
      body.lastChild && body.append(gap(Math.max(0, moved)));
      box.scrollTop += moved * height;
    }
  }
  verdict();
  const focused = document.activeElement.closest('#table tbody tr');
  const first = Math.max(0, Math.floor(box.scrollTop / height) - 8), last = first + Math.ceil(box.clientHeight / height) + 16;
  const wanted = [], keep = new Set();
  let end = 0;
  const add = (from, to) => {
    for (let index = Math.max(from, end); index < to && index < list.length; index++) {
      if (index > end) wanted.push(gap(index - end));
      wanted.push(element(list[index], index));
      keep.add(list[index].Socket);
      end = index + 1;
    }
  };
  const other = focused ? list.findIndex((row) => lines.get(row.Socket) === focused) : last;
  if (other >= 0 && other < first) add(other, other + 1);
  add(first, last);
  if (other >= last) add(other, other + 1);
  if (list.length > end) wanted.push(gap(list.length - end));
  for (const socket of lines.keys()) keep.has(socket) || lines.delete(socket);
  // An element with the focus would lose it if it was moved.
  let at = body.firstChild;
  for (const row of wanted) {
    while (row === focused && at !== row) [at] = [at.nextSibling, at.remove()];
    if (at === row) at = at.nextSibling;
    else body.insertBefore(row, at);
  }
  while (at) [at] = [at.nextSibling, at.remove()];
  if (focused && !focused.isConnected) box.focus({ preventScroll: true });
  const one = body.querySelector('tr:not(.gap)');
  if (one) height = one.getBoundingClientRect().height || height;
}

/* All changes of a frame are shown together. A hidden page has no frames; it shows its title. */
function plan() {
  if (planned) return;
  planned = true;
  if (document.hidden) setTimeout(draw, SECOND);
  else requestAnimationFrame(draw);
}

/* Shows the list from the top after the reader has chosen something. */
function choose() {
  stale = true;
  $('box').scrollTop = 0;
  plan();
}

/* ---- The connection ---- */

let source = null;

async function load() {
  const mine = loading = {};
  changed.clear();
  try {
    const rows = await (await get('./', 'application/json')).json();
    if (loading !== mine) return;
    [known, all, lost, loading, stale] = [new Map(), [], 0, null, true];
    rows.forEach(take);
    plan();
  } catch (error) {
    if (loading === mine) setTimeout(() => loading === mine && load(), 3 * SECOND);
  }
}

function connect() {
  source = new EventSource('events');
  source.addEventListener('open', load);
  source.addEventListener('change', (event) => {
    for (const row of JSON.parse(event.data)) changed.set(row.Socket, row);
    plan();
  });
  source.addEventListener('error', () => {
    lost = lost || now();
    plan();
    // EventSource connects again by itself, but not after an answer such as 502 of a proxy.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3 * SECOND);
  });
}

const head = $('table').tHead.rows[0];
function mark() {
  COLUMNS.forEach((_, at) => {
    if (at === column) head.cells[at].setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
    else head.cells[at].removeAttribute('aria-sort');
  });
}
COLUMNS.forEach(([name, first], at) => {
  const button = make('button', name), cell = make('th', [button]);
  cell.scope = 'col';
  head.append(cell);
  button.addEventListener('click', () => {
    direction = at === column ? -direction : first;
    column = at;
    mark();
    choose();
  });
});
mark();
for (const name of NAMES) {
  const button = make('button', '', STATES[name][1]);
  button.id = 'state-' + name;
  button.hidden = true;
  button.setAttribute('aria-pressed', false);
  button.addEventListener('click', () => {
    pressed.delete(name) || pressed.add(name);
    button.setAttribute('aria-pressed', pressed.has(name));
    choose();
  });
  $('states').append(button);
}
write($('name'), 'kapos of ' + location.host);
$('filter').addEventListener('input', choose);
$('box').addEventListener('scroll', plan);
addEventListener('resize', plan);
$('table').addEventListener('keydown', (event) => {
  const row = event.target.closest('tbody tr');
  const beside = { ArrowDown: 'nextSibling', ArrowUp: 'previousSibling' }[event.key];
  if (!row || !beside) return;
  // Keys may come faster than frames.
  if (row[beside] && row[beside].className === 'gap') draw();
  const link = row[beside] && row[beside].querySelector('a');
  if (link) {
    event.preventDefault();
    link.focus();
  }
});
document.addEventListener('visibilitychange', () => {
  // A frame that was planned does not come while the page is hidden.
  planned = false;
  plan();
});
setInterval(() => document.hidden || plan(), SECOND);
connect();
