// The console: which view is shown, what it is shown with, and how often that is asked for.

import { get, Refusal } from './api.js';
import { button, h, show } from './dom.js';
import { field } from './dialog.js';
import { parse } from './metrics.js';
import { accept, begin, close, open, session } from './session.js';
import * as audit from './audit.js';
import * as databases from './databases.js';
import * as events from './events.js';
import * as grants from './grants.js';
import * as overview from './overview.js';
import * as queues from './queues.js';
import * as services from './services.js';

const VIEWS = { overview, services, queues, events, grants, databases, audit };
const EVERY_MS = 2_000;
const EVERY_MS_MAX = 30_000;
/** How many samples of the metrics are kept: rates are over the last of them. */
const SAMPLES_MAX = 16;

const $ = (id) => document.getElementById(id);
const memory = { samples: [], changes: [] };
let route = { name: 'overview', rest: [] };
let wait = EVERY_MS;
let timer = null;
let turn = 0;
let changes = null;

/** What a view may do. */
const context = {
  memory,
  refresh: () => load(),
  say: (text) => { $('alarm').textContent = ''; $('outcome').textContent = text; },
  /** Does something and tells what came of it. */
  async act(what, deed) {
    context.say(`${what} …`);
    try {
      const told = await deed();
      context.say(told ?? `${what}: done.`);
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) return ended();
      $('outcome').textContent = '';
      $('alarm').textContent = `${what}: ${error.message}`;
    }
    return load();
  },
  /** Metrics of now, remembered for rates. */
  async sample() {
    const sample = parse(await get('metrics', { text: true }));
    memory.samples.push(sample);
    if (memory.samples.length > SAMPLES_MAX) memory.samples.shift();
    return sample;
  },
};

function read() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decode);
  return { name: name in VIEWS ? name : 'overview', rest };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function frame() {
  $('views').hidden = !session.isOpen;
  show($('views'), h('ul', null, Object.entries(VIEWS).map(([name, view]) => h('li', { 'data-key': name },
    h('a', { href: `#/${name}`, 'aria-current': name === route.name ? 'page' : null }, view.title)))));
  show($('account'), session.isOpen && [h('span', { class: 'who' }, session.name), button('Sign out', () => signOut(), { 'data-key': 'out' })]);
}

async function load() {
  clearTimeout(timer);
  if (!session.isOpen) return;
  const mine = ++turn;
  const view = VIEWS[route.name];
  const asked = route;
  try {
    const data = await view.load({ ...context, rest: asked.rest });
    if (mine !== turn) return;
    show($('main'), h('h1', { id: 'title', tabindex: -1 }, view.title), view.render(data, { ...context, rest: asked.rest }));
    $('freshness').textContent = `As of ${new Date().toLocaleTimeString()}`;
    $('freshness').className = '';
    wait = EVERY_MS;
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof Refusal && error.status === 401) return ended();
    if (!(error instanceof Refusal)) console.error(error);
    $('freshness').className = 'stale';
    $('freshness').textContent = `Not up to date: ${error.message}`;
    if (!$('title')) show($('main'), h('h1', { id: 'title', tabindex: -1 }, view.title), h('p', null, error.message));
    wait = Math.min(wait * 2, EVERY_MS_MAX);
  }
  if (document.visibilityState === 'visible') timer = setTimeout(load, wait);
}

function ended() {
  return signOut('The session has ended. Please sign in again.');
}

async function signOut(why) {
  turn += 1;
  clearTimeout(timer);
  await close();
  changes?.close();
  memory.samples = [];
  enter(typeof why === 'string' ? why : null);
}

/** The page of those who are not signed in. */
function enter(problem) {
  frame();
  document.title = 'Sign in · Exprsn Console';
  const withToken = async (event) => {
    event.preventDefault();
    accept($('field-token').value.trim());
    try {
      await get('queues');
      begun();
    } catch (error) {
      await close();
      enter(error.status === 401 ? 'The token is not good.' : error.status === 403 ? 'The token does not administer: it needs the permission admin.' : error.message);
    }
  };
  show($('main'), h('div', { class: 'enter', 'data-key': 'enter' }, h('h1', { id: 'title', tabindex: -1 }, 'Sign in'),
    problem && h('p', { class: 'problem', role: 'alert' }, problem),
    session.canSignIn ? [h('p', null, 'With the account of an administrator of this platform.'), button('Sign in with exprsn-auth', begin, { id: 'sign-in', class: 'primary' })]
      : h('p', null, 'exprsn-auth does not answer here: a token of the operator is the way in.'),
    h('form', { onsubmit: withToken, class: 'token', autocomplete: 'off' }, h('h2', null, 'With a token'),
      field('Token', 'token', { type: 'password', required: true, autocomplete: 'off', spellcheck: 'false' },
        'From `exprsn token issue --subject operator:me --permissions read,admin`, or the file operator.token.'),
      h('button', { type: 'submit' }, 'Use the token'))));
  $('freshness').textContent = '';
  $('title').focus();
}

function begun() {
  frame();
  // Changes of services come by themselves; everything else is asked for.
  changes = new EventSource(new URL('../api/registry/events', import.meta.url));
  for (const kind of ['registered', 'renewed', 'expired', 'removed', 'state']) {
    changes.addEventListener(kind, (event) => {
      memory.changes.unshift(JSON.parse(event.data));
      memory.changes.length = Math.min(memory.changes.length, 50);
      if (kind === 'state') load();
    });
  }
  moved();
}

/** Another view: its title has the focus, as after loading a page. */
async function moved() {
  if (!session.isOpen) return;
  route = read();
  document.title = `${VIEWS[route.name].title} · Exprsn Console`;
  frame();
  const another = $('main').dataset.view !== route.name;
  if (another) context.say('');
  $('main').dataset.view = route.name;
  if (another) show($('main'), h('h1', { id: 'title', tabindex: -1 }, VIEWS[route.name].title), h('p', { class: 'soft' }, 'Loading …'));
  if (another) $('title').focus();
  await load();
}

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  $('main').focus();
});
window.addEventListener('hashchange', moved);
document.addEventListener('visibilitychange', () => (document.visibilityState === 'visible' ? load() : clearTimeout(timer)));

const problem = await open().catch(() => 'exprsn-setup does not answer.');
if (session.isOpen) begun();
else if (location.hash === '#/sign-in' && session.canSignIn && !problem) await begin();
else enter(problem);
