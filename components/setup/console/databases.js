// Databases: what the host counts of each service's database and its connections.

import { get } from './api.js';
import { count, h, short, state, table } from './dom.js';
import { rate, series } from './metrics.js';

export const title = 'Databases';

const PREFIX = 'exprsn_sql_';

export async function load({ sample }) {
  const [health, metrics] = await Promise.all([get('health'), sample()]);
  return { health, metrics };
}

export function render({ health, metrics }, { memory }) {
  const before = memory.samples[0] === metrics ? null : memory.samples[0];
  const families = [...metrics.families.keys()].filter((name) => name.startsWith(PREFIX) && !/_(bucket|created)$/.test(name)).sort();
  const services = [...new Set(families.flatMap((name) => series(metrics, name).map((one) => one.labels.service)))].filter(Boolean).sort();
  const own = (name, service) => series(metrics, name).filter((one) => one.labels.service === service);
  const columns = ['Service', 'Answers', ...families.map((name) => ({ name: words(name), number: true }))];
  const rows = services.map((service) => {
    const said = health.services.find((one) => one.service === service)?.database;
    const answers = said === undefined || said === null ? state('does not say', 'off') : said ? state('yes', 'good') : state('no', 'bad');
    return { key: service, cells: [short(service), answers, ...families.map((name) => cell(name, own(name, service), rate(before, metrics, name, { service })))] };
  });
  return table('Databases of services', columns, rows, { key: 'databases', empty: 'The host counts nothing of databases.' });
}

const words = (name) => name.slice(PREFIX.length).replace(/_total$/, '').replaceAll('_', ' ');

function cell(name, found, perSecond) {
  if (found.length === 0) return '–';
  const total = count(Math.round(found.reduce((sum, one) => sum + one.value, 0) * 1000) / 1000);
  return name.endsWith('_total') && Number.isFinite(perSecond) ? [total, h('small', null, `${perSecond.toFixed(1)} /s`)] : total;
}
