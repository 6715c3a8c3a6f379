// The console in a real headless Chromium: `node console.mjs task.json`. Prints a line for each thing that holds; fails at
// the first that does not.
//
// The task: { address, setup, broker, timeline, user: { name, password }, author, reader, swap: { service, file }, screenshots }.
// `address` is where `localhost` lies for the browser; `setup` is the console's origin there; `broker` and `timeline` are
// origins that this script reaches; `author` and `reader` are tokens, that of a person who posts and one without `admin`.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const task = JSON.parse(await readFile(process.argv[2], 'utf8'));
const CONSOLE = `${task.setup}/console`;
const PATIENCE_MS = 60_000;
/** What must stay text. It would call alert, load from elsewhere, and end a script. */
const HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)>\u202e{{7*7}}';

const profile = await mkdtemp(join(tmpdir(), 'exprsn-console-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.EXPRSN_CHROMIUM ?? '/usr/bin/chromium', headless: true, viewport: { width: 1360, height: 850 }, colorScheme: 'light', reducedMotion: 'reduce',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    `--host-resolver-rules=MAP localhost ${task.address}`],
});
browser.setDefaultTimeout(PATIENCE_MS);
const wrong = [];
const page = await browser.newPage();
watch(page);

/** Whatever must never happen in the console. */
function watch(some) {
  some.on('dialog', (dialog) => { wrong.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  some.on('pageerror', (error) => wrong.push(`an error: ${error.message}`));
  some.on('console', (message) => { if (/content security policy|trusted/i.test(message.text())) wrong.push(message.text()); });
  some.on('request', (request) => { if (!/^https?:\/\/(localhost|127\.\d+\.\d+\.\d+)[:/]/.test(request.url())) wrong.push(`a request to ${request.url()}`); });
}

const holds = (what) => {
  assert.deepEqual(wrong, [], what);
  console.log(`holds: ${what}`);
};

// === keyboard ===

/** Goes on with Tab until what has the focus matches, as a person without a mouse does. */
async function tabTo(selector, tabs = 250) {
  for (let tab = 0; tab < tabs; tab += 1) {
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`no Tab leads to ${selector}`);
}

async function press(selector) {
  await tabTo(selector);
  const seen = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(seen, 'none', `the focus on ${selector} is seen`);
  await page.keyboard.press('Enter');
}

async function view(name, title) {
  await page.evaluate(() => document.querySelector('.skip').focus());
  await press(`#views a[href="#/${name}"]`);
  await page.waitForFunction((wanted) => document.activeElement?.id === 'title' && document.activeElement.textContent === wanted, title);
}

const outcome = (text) => page.waitForFunction((wanted) => {
  const alarm = document.getElementById('alarm').textContent;
  if (alarm) throw new Error(alarm);
  return document.getElementById('outcome').textContent.includes(wanted);
}, text);

async function picture(name) {
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.evaluate(() => new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); }));
    await page.screenshot({ path: join(task.screenshots, `console-${name}-${scheme}.png`) });
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

// === what is tried ===

async function headers() {
  const answer = await page.goto(CONSOLE);
  const policy = answer.headers()['content-security-policy'];
  const wanted = ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'"];
  for (const part of wanted) assert.ok(policy.includes(part), `${part} in ${policy}`);
  assert.ok(!/unsafe|\*|data:|blob:/.test(policy), policy);
  const others = { 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY', 'referrer-policy': 'no-referrer', 'cross-origin-opener-policy': 'same-origin', 'set-cookie': undefined };
  for (const [name, value] of Object.entries(others)) assert.equal(answer.headers()[name], value, name);
  holds('the headers are strict and no cookie is set');
}

async function refusesWithoutAdmin() {
  await page.fill('#field-token', task.reader);
  await page.press('#field-token', 'Enter');
  await page.waitForSelector('[role=alert].problem');
  assert.match(await page.textContent('[role=alert].problem'), /admin/);
  await page.fill('#field-token', '');
  holds('a token without admin does not open it');
}

async function signIn() {
  await page.goto(CONSOLE);
  await page.waitForSelector('#sign-in');
  await press('#sign-in');
  await page.waitForSelector('#username');
  await page.keyboard.type(task.user.name);
  await page.keyboard.press('Tab');
  await page.keyboard.type(task.user.password);
  await page.keyboard.press('Enter');
  // Consent is asked once and remembered.
  await page.waitForSelector('button[value=allow], .tiles');
  if (await page.isVisible('button[value=allow]')) {
    await tabTo('button[value=allow]');
    await page.keyboard.press('Enter');
  }
  await page.waitForSelector('.tiles');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'title', 'the focus is on the title');
  assert.equal(await page.evaluate(() => location.search), '', 'the code is not left in the address');
  const kept = await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
  assert.deepEqual(kept, [0, 0, ''], 'nothing is left in the browser');
  holds('a person signs in by keyboard alone, and the token is nowhere but in memory');
}

async function attends() {
  await page.waitForFunction(() => /\/s/.test(document.querySelector('.tiles').textContent));
  const found = await page.evaluate(() => ({
    landmarks: ['header', 'nav', 'main', 'footer'].filter((name) => !document.querySelector(name)),
    tables: [...document.querySelectorAll('table')].every((table) => table.caption && table.querySelector('thead th[scope=col]') && table.querySelector('tbody th[scope=row]')),
    live: document.querySelectorAll('[aria-live=polite]').length, lang: document.documentElement.lang,
  }));
  assert.deepEqual(found, { landmarks: [], tables: true, live: 1, lang: 'en' });
  await picture('overview');
  holds('landmarks, headers of tables and a live region are there');
}

async function postTravels() {
  const answer = await fetch(`${task.timeline}/api/posts`, {
    method: 'POST', headers: { authorization: `Bearer ${task.author}`, 'content-type': 'application/json' }, body: JSON.stringify({ content: `A post ${HOSTILE}` }),
  });
  assert.equal(answer.status, 201, await answer.clone().text());
  const made = await answer.json();
  const id = made.id ?? made.post.id;
  await view('events', 'Events');
  await tabTo('#field-follow');
  await page.keyboard.type(id);
  await page.keyboard.press('Enter');
  const row = page.locator('tr', { hasText: 'timeline-fanout' }).filter({ hasText: id.slice(0, 8) });
  await row.filter({ hasText: 'completed' }).first().waitFor();
  const delivered = page.locator('div[aria-label=Deliveries] tr', { has: page.locator('th a', { hasText: 'pulse' }) }).locator('td').first();
  await page.waitForFunction((cell) => Number(cell.textContent) > 0, await delivered.elementHandle());
  await picture('events');
  holds('a post is seen on its way: its job in timeline-fanout, its event delivered to pulse');
}

async function mapsEdges() {
  await view('services', 'Services');
  await page.waitForSelector('.map path.edge.call');
  const kinds = await page.evaluate(() => ['call', 'event'].map((kind) => document.querySelectorAll(`.map g > path.edge.${kind}`).length));
  assert.ok(kinds.every((n) => n > 0), `edges: ${kinds}`);
  assert.match(await page.textContent('.order'), /ca.*setup/s);
  const listed = page.locator('div[aria-label="Who calls whom"] tr', { hasText: 'post.*' });
  assert.match(await listed.first().textContent(), /timeline.*pulse.*asynchronous/);
  holds('the map draws calls and events apart, and a table says the same');
}

async function revokes() {
  await view('grants', 'Grants');
  await press('a[href="#/grants/exprsn-broker"]');
  await page.waitForSelector('button[aria-label="Revoke cache"]');
  await press('button[aria-label="Revoke cache"]');
  await page.waitForSelector('dialog[open]');
  await tabTo('#field-reason');
  await page.keyboard.type(HOSTILE.replace('\u202e', ''));
  await press('dialog button.danger');
  await outcome('cache is withheld from broker');
  await page.waitForSelector('button[aria-label="Restore cache"]');
  await picture('grants');
  holds('a grant is revoked by keyboard');
}

async function seesTheDenial() {
  const ask = { key: 'k', call: 'get' };
  const denied = await fetch(`${task.broker}/cache`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(ask) });
  assert.match(await denied.text(), /AccessDenied.*revoked/s, 'the next call is denied');
  const data = { do: 'succeed', note: HOSTILE };
  const answer = await fetch(`${task.broker}/queue`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ queue: 'broker-work', call: 'add', jobs: [{ id: 'hostile-1', data }] }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  await view('queues', 'Queues');
  await press('a[href="#/queues/broker-work/failed"]');
  const row = page.locator('tr', { hasText: 'hostile-1' });
  await row.waitFor();
  assert.match(await row.textContent(), /3 of 3.*failed/s);
  await row.locator('summary').focus();
  await page.keyboard.press('Enter');
  assert.equal(JSON.parse(await row.locator('pre').first().textContent()).note, HOSTILE, 'the data is shown as it is');
  const made = await page.evaluate(() => document.querySelectorAll('main img, main script, main svg[onload], main iframe').length);
  assert.equal(made, 0, 'no markup came of it');
  await picture('queues');
  holds('the next call is denied, the job that needs the grant is dead, and its hostile data is text');
}

async function retries() {
  await view('grants', 'Grants');
  await press('a[href="#/grants/exprsn-broker"]');
  await page.waitForSelector('button[aria-label="Restore cache"]');
  await press('button[aria-label="Restore cache"]');
  await outcome('cache is given back to broker');
  await view('queues', 'Queues');
  await press('a[href="#/queues/broker-work/failed"]');
  await page.waitForSelector('button[aria-label="Retry work hostile-1"]');
  await press('button[aria-label="Retry work hostile-1"]');
  await outcome('Job hostile-1 waits again.');
  await press('a[href="#/queues/broker-work/completed"]');
  await page.locator('tr', { hasText: 'hostile-1' }).filter({ hasText: 'completed' }).waitFor();
  holds('the dead job is retried by keyboard and done');
}

async function swaps() {
  const name = task.swap.service;
  await view('services', 'Services');
  await press(`div[aria-label=Services] a[href="#/services/${name}"]`);
  await page.waitForSelector('#swap');
  const before = await page.textContent('tr.chosen code');
  await press('#swap');
  await page.setInputFiles('dialog input[type=file]', task.swap.file);
  await press('dialog button.primary');
  await page.waitForSelector('#field-unsigned');
  await tabTo('#field-unsigned');
  await page.keyboard.press('Space');
  await press('dialog button.primary');
  await outcome('is live');
  await page.waitForFunction((old) => document.querySelector('tr.chosen code')?.textContent !== old, before);
  await page.locator('div[aria-label^="History of"] tr', { hasText: 'swap' }).first().waitFor();
  await picture('services');
  await press('#rollback');
  await press('dialog button.primary');
  await outcome('is live');
  await page.waitForFunction((old) => document.querySelector('tr.chosen code')?.textContent === old, before);
  holds('a service is swapped with a file, and rolled back');
}

async function isOnRecord() {
  await view('audit', 'Audit log');
  for (const action of ['grant.withheld', 'grant.restored', 'queue.job-retried', 'component.admitted', 'service.swap', 'service.rollback']) {
    const row = page.locator('tbody tr', { hasText: action }).first();
    await row.waitFor();
    if (action !== 'component.admitted') assert.match(await row.textContent(), /user:/, action);
  }
  await press('#verify');
  await outcome('as they were written');
  await picture('audit');
  holds('everything is in the audit log with who did it, and the log is whole');
}

async function showsDatabases() {
  await view('databases', 'Databases');
  await page.locator('tbody tr', { hasText: 'timeline' }).waitFor();
  holds('databases are shown');
}

async function cannotBeFramed() {
  const other = await browser.newPage();
  await other.route('http://127.0.0.1:1/', (route) => route.fulfill({ contentType: 'text/html', body: `<!doctype html><iframe src="${CONSOLE}"></iframe>` }));
  await other.goto('http://127.0.0.1:1/');
  await other.waitForFunction(() => document.querySelector('iframe'));
  await other.waitForTimeout(500);
  const inner = await other.frames()[1].evaluate(() => document.getElementById('views') !== null).catch(() => false);
  assert.equal(inner, false, 'the console shows in a frame of another origin');
  await other.close();
  holds('another origin cannot frame it');
}

async function signsOut() {
  await page.evaluate(() => document.querySelector('.skip').focus());
  await press('#account button');
  await page.waitForSelector('#sign-in');
  assert.equal(await page.evaluate(() => document.getElementById('views').hidden), true);
  holds('signing out leaves nothing on the page');
}

try {
  for (const step of [headers, refusesWithoutAdmin, signIn, attends, postTravels, mapsEdges, revokes, seesTheDenial, retries, swaps, isOnRecord, showsDatabases, cannotBeFramed, signsOut]) {
    try {
      await step();
    } catch (error) {
      await page.screenshot({ path: join(task.screenshots, 'failed.png') }).catch(() => null);
      console.error(`${step.name} fails at ${page.url()}: outcome ${await page.textContent('#outcome').catch(() => '?')}; ${wrong.join('; ')}`);
      throw error;
    }
  }
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true });
}
