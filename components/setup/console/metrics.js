// The OpenMetrics text format, as far as the host writes it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** `{ name → [{ labels, value }] }`, and when it was read. */
export function parse(text, at = Date.now()) {
  const families = new Map();
  for (const line of text.split('\n')) {
    const found = line.startsWith('#') ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? '').matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
    if (!families.has(found[1])) families.set(found[1], []);
    families.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return { at, families };
}

export const series = (sample, name) => sample?.families.get(name) ?? [];

/** The sum of what matches. */
export function sum(sample, name, wanted = {}) {
  const matches = ({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value);
  return series(sample, name).filter(matches).reduce((all, one) => all + one.value, 0);
}

/** A counter's growth per second between two samples. */
export function rate(before, after, name, wanted) {
  if (!before || !after || after.at <= before.at) return NaN;
  return Math.max(0, sum(after, name, wanted) - sum(before, name, wanted)) / ((after.at - before.at) / 1000);
}

/** Histograms by their labels: `[{ labels, count, sum, quantile(q) }]`, in the histogram's unit. */
export function histograms(sample, name) {
  const groups = new Map();
  const group = (labels) => {
    const { le, ...rest } = labels;
    const key = JSON.stringify(Object.entries(rest).sort());
    if (!groups.has(key)) groups.set(key, { labels: rest, buckets: [], count: 0, sum: 0 });
    return groups.get(key);
  };
  for (const { labels, value } of series(sample, `${name}_bucket`)) group(labels).buckets.push([Number(labels.le.replace('+Inf', 'Infinity')), value]);
  for (const { labels, value } of series(sample, `${name}_count`)) group(labels).count = value;
  for (const { labels, value } of series(sample, `${name}_sum`)) group(labels).sum = value;
  return [...groups.values()].map((one) => ({ ...one, quantile: (q) => quantile(one.buckets, q) }));
}

/** Histograms of the same buckets as one. */
export function merged(all) {
  const buckets = new Map();
  for (const one of all) for (const [le, value] of one.buckets) buckets.set(le, (buckets.get(le) ?? 0) + value);
  return { count: all.reduce((n, one) => n + one.count, 0), quantile: (q) => quantile([...buckets], q) };
}

/** Between a bucket's bounds the values are taken to lie evenly, as Prometheus does. */
export function quantile(buckets, q) {
  const sorted = [...buckets].sort((a, b) => a[0] - b[0]);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (total === 0) return NaN;
  const rank = q * total;
  let [lower, below] = [0, 0];
  for (const [le, value] of sorted) {
    if (value >= rank) return le === Infinity ? lower : lower + (le - lower) * ((rank - below) / Math.max(1e-9, value - below));
    [lower, below] = [le, value];
  }
  return lower;
}
