// Services: the map, the order of starting, versions, and what changes them.

import { ask, get, part, post, remove } from './api.js';
import { confirm, field } from './dialog.js';
import { button, count, digest, duration, h, short, state, table, time } from './dom.js';
import { counted, declared } from './edges.js';
import { map } from './map.js';
import { rate, sum } from './metrics.js';

export const title = 'Services';

const KIND = { healthy: 'good', starting: 'fair', draining: 'fair', unhealthy: 'bad', failed: 'bad', stopped: 'off' };
const OUTCOME = { live: 'good', trial: 'fair', failed: 'bad', removed: 'off' };
const INVOCATIONS = 'exprsn_invocations_total';

export async function load({ rest, sample }) {
  const chosen = rest[0];
  const [services, graph, components, metrics, history] = await Promise.all([
    get('registry/services'), get('graph'), get('ca/components'), sample(),
    chosen ? get(`services/${part(chosen)}/history`).catch((error) => ({ items: [], problem: error.message })) : null]);
  return { services, graph, components: components.items, metrics, history, chosen };
}

export function render(data, context) {
  const chosen = data.services.find((one) => one.name === data.chosen);
  return [overviewMap(data, context), chosen ? detail(chosen, data, context) : null, list(data, context), order(data.graph), connections(data, context)];
}

// === the map ===

function edges({ components, metrics }, { memory }) {
  const { edges: all, any } = declared(components);
  const before = memory.samples.at(-2);
  const [then, now] = [counted(before), counted(metrics)];
  const grown = (key) => (now.get(key) ?? 0) - (then.get(key) ?? now.get(key) ?? 0);
  const seen = new Set(all.map((edge) => edge.key));
  for (const key of now.keys()) {
    const [kind, from, to] = key.split(' ');
    if (!seen.has(key) && from !== to) all.push({ key, kind, from, to, what: ['counted by the host'] });
  }
  const trigger = { event: 'event', job: 'job' };
  return {
    any,
    edges: all.map((edge) => {
      const total = now.get(edge.key);
      // Without counts of a pair, a subscriber that is handed events at this moment shows that the line is in use.
      const handled = trigger[edge.kind] && rate(before, metrics, INVOCATIONS, { service: edge.to, trigger: trigger[edge.kind] }) > 0;
      return { ...edge, total, label: total ? count(total) : null, busy: now.size > 0 ? grown(edge.key) > 0 : handled };
    }),
  };
}

function overviewMap(data, context) {
  const nodes = data.services.map((one) => {
    const of = (trigger) => count(sum(data.metrics, INVOCATIONS, { service: one.name, trigger }));
    return { name: one.name, kind: KIND[one.status], note: `${of('http')} http  ${of('event')} ev  ${of('job')} jobs` };
  });
  return map({ nodes, groups: data.graph.startOrder, ...edges(data, context) });
}

function connections(data, context) {
  const { edges: all, any } = edges(data, context);
  const word = { call: 'synchronous: call', event: 'asynchronous: event', job: 'asynchronous: job' };
  const rows = all.map((edge) => ({
    key: edge.key, cells: [short(edge.from), short(edge.to), word[edge.kind], edge.what.join('; '), edge.total === undefined ? (edge.busy ? 'busy' : '–') : count(edge.total)],
  }));
  for (const [name, what] of any) rows.push({ key: `any ${name}`, cells: [short(name), 'any', word.call, what.join('; '), '–'] });
  return table('Who calls whom', ['From', 'To', 'How', 'What', { name: 'Counted', number: true }], rows, { key: 'connections' });
}

function order(graph) {
  return h('section', { 'data-key': 'order' }, h('h2', null, 'Order of starting'),
    h('ol', { class: 'order' }, graph.startOrder.map((group) => h('li', null, group.map(short).join(', ')))),
    graph.cycles.length > 0 && h('p', { class: 'problem' }, `In a circle: ${graph.cycles.map((cycle) => cycle.join(' → ')).join('; ')}`),
    graph.missing.length > 0 && h('p', { class: 'problem' }, `Depended on, but not here: ${graph.missing.join(', ')}`));
}

// === services and versions ===

function list({ services, chosen }) {
  const rows = services.map((one) => ({
    key: one.name, class: one.name === chosen ? 'chosen' : null,
    cells: [h('a', { href: `#/services/${part(one.name)}`, 'aria-current': one.name === chosen ? 'true' : null }, short(one.name)),
      [state(one.status, KIND[one.status]), one.reason && h('small', null, one.reason)], one.version, digest(one.digest), one.port,
      count(one.load?.instances), time(one.startedAt), one.dependencies.map(short).join(', ') || '–'],
  }));
  return table('Services', ['Service', 'State', 'Version', 'Digest', { name: 'Port', number: true }, { name: 'Instances', number: true }, 'Live since', 'Depends on'], rows, { key: 'list' });
}

function detail(service, { history, components }, context) {
  const name = service.name;
  const act = (what, deed) => context.act(`${what} ${short(name)}`, deed);
  const change = (what, path, told) => act(what, async () => outcome(await post(`services/${part(name)}/${path}`), told));
  const trial = history.canary;
  return h('section', { class: 'detail', 'data-key': `detail ${name}`, 'aria-labelledby': 'detail' },
    h('h2', { id: 'detail' }, short(name)), h('p', null, service.description),
    trial && h('p', { class: 'trial' }, state('on trial', 'fair'), ` ${trial.version} `, digest(trial.digest), ` has ${trial.percent} % of the invocations.`),
    h('div', { class: 'row' },
      button('Swap …', () => swap(service, history, components, context), { id: 'swap', class: 'primary' }),
      button('Roll back', async () => {
        const sure = await confirm({ title: `Roll ${short(name)} back?`, text: 'The version that was live before takes over; what this one has begun it finishes.', verb: 'Roll back' });
        if (sure) await change('Rolling back', 'rollback');
      }, { id: 'rollback' }),
      trial && button('Promote canary', () => change('Promoting', 'canary/promote'), { id: 'promote' }),
      trial && button('Abort canary', () => change('Aborting', 'canary/abort'), { id: 'abort' }),
      button('Drain and take off …', async () => {
        const sure = await confirm({ title: `Take ${short(name)} off?`, text: 'It takes nothing new, finishes what it has begun, and runs no more. Services of platform.toml stay: the platform refuses.', verb: 'Drain and take off', danger: true });
        if (sure) await act('Taking off', async () => outcome(await remove(`services/${part(name)}`)));
      }, { id: 'take-off', class: 'danger' })),
    history.problem && h('p', { class: 'problem' }, history.problem),
    table(`History of ${short(name)}`, ['At', 'Action', 'Outcome', 'Version', 'Digest', { name: 'Took', number: true }, 'By', 'Reason'], history.items.slice(0, 50).map((one, index) => ({
      key: `${one.at} ${index}`,
      cells: [time(one.at), one.action, state(one.outcome, OUTCOME[one.outcome]), one.version, digest(one.digest), duration(one.tookMs), one.by, one.reason ?? ''],
    })), { key: 'history', empty: 'It runs as it was configured; nobody has changed it.' }));
}

function outcome(changed) {
  const words = { live: `${changed.version} is live`, trial: `${changed.version} is on trial`, removed: 'it is off' };
  return `${short(changed.service)}: ${words[changed.outcome] ?? changed.outcome}, ${duration(changed.tookMs)} after it was asked for.`;
}

/** Versions that could take over: admitted ones, and those of the history. */
function candidates(service, history, components) {
  const known = new Map();
  for (const one of components) if (one.service === service.name) known.set(one.digest, one.version);
  for (const one of history.items) known.set(one.digest, one.version);
  known.delete(service.digest);
  return [...known];
}

async function swap(service, history, components, context) {
  const others = candidates(service, history, components);
  const asked = await confirm({
    title: `Swap ${short(service.name)}`, verb: 'Go on',
    text: 'The other version is loaded and checked beside this one; then it takes over. What this one has begun it finishes.',
    fields: [
      field('Component file', 'file', { type: 'file', accept: '.wasm' }, 'Sent to exprsn-ca, which looks into it; nothing of it runs by that.'),
      others.length > 0 && field('Or a version known here', 'digest', { tag: 'select' }),
      field('Share in percent', 'percent', { type: 'number', min: 1, max: 99, inputmode: 'numeric' }, 'Makes it a canary with that share; empty: it takes over at once.'),
      field('Take the running version off first', 'restart', { type: 'checkbox' }, 'For migrations that it cannot bear.'),
    ].map((one) => fill(one, others)),
  });
  if (!asked) return;
  await context.act(`Swapping ${short(service.name)}`, async () => {
    const chosen = asked.file ? await send(service, asked.file, context) : asked.digest;
    if (!chosen) return 'Nothing was swapped.';
    const body = { digest: chosen, restart: asked.restart };
    if (asked.percent) body.percent = Number(asked.percent);
    return outcome(await post(`services/${part(service.name)}/swap`, body));
  });
}

function fill(element, others) {
  const select = element ? element.querySelector('select') : null;
  select?.append(h('option', { value: '' }, 'none'), ...others.map(([hex, version]) => h('option', { value: hex }, `${version}  ${hex.slice(0, 12)}`)));
  return element;
}

/** Sends a file and has it admitted after a person has seen what it asks for. */
async function send(service, file, context) {
  context.say(`Sending ${file.name} …`);
  const found = await ask('POST', 'ca/components/files', { body: file, type: 'application/wasm' });
  if (found.name !== service.name) throw new Error(`the file is ${found.name}, not ${service.name}`);
  const signed = Boolean(found.signer);
  const sure = await confirm({
    title: `Admit ${short(found.name)} ${found.version}?`, verb: 'Admit and swap',
    text: [h('dl', { class: 'facts' }, fact('Digest', h('code', null, found.digest)), fact('Signed by', signed ? found.signer.publisher ?? found.signer.key : 'nobody')),
      h('p', null, 'It asks for:'), h('ul', null, (found.grants ?? []).map((grant) => h('li', null, h('code', null, grant.capability), ` ${(grant.meaning ?? []).join('; ')}`)))],
    fields: [field('Admit it although no trusted publisher has signed it', 'unsigned', { type: 'checkbox' })],
  });
  if (!sure) return null;
  await post('ca/components', { digest: found.digest, allowUnsigned: sure.unsigned });
  return found.digest;
}

function fact(name, value) {
  return h('div', null, h('dt', null, name), h('dd', null, value));
}
