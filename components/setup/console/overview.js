// How the platform fares, in a few numbers: the success metrics.

import { get } from './api.js';
import { count, duration, h, percent, short, state, table } from './dom.js';
import { counted } from './edges.js';
import { histograms, merged, rate, series, sum } from './metrics.js';

export const title = 'Overview';

const HEALTH = { healthy: 'good', degraded: 'fair', unhealthy: 'bad' };
const LATENCY = 'exprsn_invocation_duration_seconds';
const INVOCATIONS = 'exprsn_invocations_total';

export async function load({ sample }) {
  const [health, queues, registry, metrics] = await Promise.all([get('health'), get('queues'), get('registry/services'), sample()]);
  return { health, queues, registry, metrics };
}

export function render({ health, queues, registry, metrics }, { memory }) {
  const before = memory.samples[0] === metrics ? null : memory.samples[0];
  const good = health.services.filter((one) => one.status === 'healthy').length;
  const all = merged(histograms(metrics, LATENCY));
  const failed = sum(metrics, INVOCATIONS, { outcome: 'failure' });
  const total = sum(metrics, INVOCATIONS);
  const dead = queues.reduce((n, queue) => n + queue.failed, 0);
  const waiting = queues.reduce((n, queue) => n + queue.waiting + queue.delayed + queue.prioritized, 0);
  return [
    h('dl', { class: 'tiles' },
      tile('Health', state(health.status, HEALTH[health.status]), `${good} of ${health.services.length} services are healthy`),
      tile('Requests, jobs, events', perSecond(rate(before, metrics, INVOCATIONS)), `${count(total)} so far`),
      tile('Failures', percent(total ? failed / total : 0), `${count(failed)} of ${count(total)}`),
      tile('Latency', quantiles(all), 'p50 · p95 · p99, admission to response head'),
      tile('Synchronous', percent(share(metrics)), shareNote(metrics)),
      tile('Dead letters', count(dead), `${count(waiting)} jobs wait`),
      tile('Up for', uptime(registry, health.checkedAt), startNote(metrics))),
    services(health, registry, before, metrics),
    routes(metrics),
  ];
}

function tile(name, value, note) {
  return h('div', { 'data-key': name }, h('dt', null, name), h('dd', null, h('strong', null, value), h('small', null, note)));
}

const perSecond = (value) => (Number.isFinite(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value)} /s` : '…');
const ms = (seconds) => duration(seconds * 1000);
const quantiles = (one) => (one.count ? [0.5, 0.95, 0.99].map((q) => ms(one.quantile(q)).replace(' ', '\u00a0')).join(' · ') : '–');

/** Calls between services where the host counts them; else what services were asked by HTTP, of all they did. */
function share(metrics) {
  const totals = [...counted(metrics)];
  if (totals.length > 0) {
    const of = (kind) => totals.filter(([key]) => key.startsWith(`${kind} `)).reduce((n, [, value]) => n + value, 0);
    return of('call') / (of('call') + of('event') + of('job'));
  }
  const total = sum(metrics, INVOCATIONS);
  return total ? sum(metrics, INVOCATIONS, { trigger: 'http' }) / total : NaN;
}

function shareNote(metrics) {
  return counted(metrics).size > 0 ? 'of what passes between services' : 'HTTP, of all invocations; the rest are jobs and events';
}

function uptime(registry, now) {
  const started = registry.map((one) => one.startedAt).filter(Boolean);
  return started.length ? duration(now - Math.min(...started)) : '–';
}

function startNote(metrics) {
  const [name] = [...metrics.families.keys()].filter((known) => /^exprsn_(start|ready|boot)\w*seconds$/.test(known));
  return name ? `ready ${ms(Math.max(...series(metrics, name).map((one) => one.value)))} after its start` : 'since the first service went live';
}

function services(health, registry, before, metrics) {
  const columns = ['Service', 'Health', { name: 'Uptime', number: true }, { name: 'Per second', number: true }, { name: 'Invocations', number: true },
    { name: 'Failures', number: true }, { name: 'p50', number: true }, { name: 'p95', number: true }, { name: 'p99', number: true }, { name: 'Shed', number: true }];
  const latency = new Map(histograms(metrics, LATENCY).filter((one) => Object.keys(one.labels).length === 1).map((one) => [one.labels.service, one]));
  const rows = health.services.map((one) => {
    const own = { service: one.service };
    const load = registry.find((known) => known.name === one.service)?.load;
    const took = latency.get(one.service);
    const at = (q) => (took?.count ? ms(took.quantile(q)) : '–');
    return {
      key: one.service,
      cells: [h('a', { href: `#/services/${encodeURIComponent(one.service)}` }, short(one.service)),
        [state(one.status, HEALTH[one.status]), one.reason && h('small', null, one.reason)],
        one.uptime === null ? '–' : duration(one.uptime * 1000), perSecond(rate(before, metrics, INVOCATIONS, own)), count(load?.invocations),
        h('span', { class: load?.failures ? 'alert' : null }, count(load?.failures)), at(0.5), at(0.95), at(0.99), count(sum(metrics, 'exprsn_shed_total', own))],
    };
  });
  return table('Services', columns, rows, { key: 'services' });
}

/** Latencies by route, where the host tells routes apart. */
function routes(metrics) {
  const byRoute = [...metrics.families.keys()].filter((name) => /^exprsn_\w*duration_seconds_bucket$/.test(name))
    .flatMap((name) => histograms(metrics, name.slice(0, -'_bucket'.length))).filter((one) => one.labels.route && one.count > 0);
  if (byRoute.length === 0) return null;
  const rows = byRoute.sort((a, b) => b.quantile(0.99) - a.quantile(0.99)).slice(0, 50).map((one) => ({
    key: JSON.stringify(one.labels),
    cells: [`${one.labels.method ?? ''} ${one.labels.route}`, short(one.labels.service), count(one.count), ms(one.quantile(0.5)), ms(one.quantile(0.95)), ms(one.quantile(0.99))],
  }));
  const number = (name) => ({ name, number: true });
  return table('Routes, slowest first', ['Route', 'Service', number('Requests'), number('p50'), number('p95'), number('p99')], rows, { key: 'routes' });
}
