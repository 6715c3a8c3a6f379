// Who calls whom: what the approved grants declare, and what the metrics have counted.

import { series } from './metrics.js';

const overlaps = (a, b) => {
  const covers = (pattern, text) => (pattern.endsWith('*') ? text.startsWith(pattern.slice(0, -1)) : pattern === text);
  return covers(a, b) || covers(b, a);
};

/** `[{ from, to, kind: 'call' | 'event' | 'job', what: [...] }]`, and `any`: who may call every service. */
export function declared(components) {
  const live = components.filter((one) => one.live);
  const names = new Set(live.map((one) => one.service));
  const found = new Map();
  const any = new Map();
  const add = (from, to, kind, what) => {
    if (from === to || !names.has(to)) return;
    const key = `${kind} ${from} ${to}`;
    if (!found.has(key)) found.set(key, { key, from, to, kind, what: new Set() });
    found.get(key).what.add(what);
  };
  for (const one of live) {
    for (const call of one.grants?.http?.call ?? []) {
      const what = `${(call.methods ?? ['*']).join(', ')} ${(call.paths ?? ['*']).join(', ')}`;
      if (call.service === '*') any.set(one.service, [...(any.get(one.service) ?? []), what]);
      else add(one.service, call.service, 'call', what);
    }
  }
  for (const from of live) {
    for (const to of live) {
      for (const topic of from.grants?.events?.publish ?? []) {
        for (const wanted of to.grants?.events?.subscribe ?? []) if (overlaps(topic, wanted)) add(from.service, to.service, 'event', wanted);
      }
      for (const queue of from.grants?.queue?.produce ?? []) {
        for (const wanted of to.grants?.queue?.consume ?? []) if (overlaps(queue, wanted)) add(from.service, to.service, 'job', wanted);
      }
    }
  }
  const edges = [...found.values()].map((edge) => ({ ...edge, what: [...edge.what].sort() }));
  return { edges, any };
}

// Families that count calls between services name both ends; which words they use is theirs.
const FROM = ['from', 'caller', 'source'];
const TO = ['to', 'callee', 'target', 'destination'];

/** Calls counted between services: `Map('kind from to' → total)`; empty where the host does not count them. */
export function counted(sample) {
  const totals = new Map();
  for (const [name] of sample?.families ?? []) {
    if (!/^exprsn_.*(calls?|edges?|deliver\w*|hops?).*_total$/.test(name)) continue;
    for (const { labels, value } of series(sample, name)) {
      const from = FROM.map((label) => labels[label]).find(Boolean);
      const to = TO.map((label) => labels[label]).find(Boolean);
      if (!from || !to) continue;
      const async = /event|deliver/.test(`${name} ${labels.kind ?? labels.trigger ?? ''}`) ? 'event' : 'call';
      const kind = (labels.kind ?? labels.trigger) === 'job' ? 'job' : async;
      const key = `${kind} ${from} ${to}`;
      totals.set(key, (totals.get(key) ?? 0) + value);
    }
  }
  return totals;
}
