// The map of services: columns in the order of starting, solid lines for calls, dashed ones for events and jobs.

import { h, short } from './dom.js';

const BOX = { width: 168, height: 62 };
const GAP = { x: 120, y: 38 };
const EDGE = { x: 84, y: 24 };

/** `nodes`: `[{ name, health, note }]`; `groups`: names by column; `edges`: as declared, with `busy` and `label`. */
export function map({ nodes, groups, edges, any }) {
  const rows = Math.max(1, ...groups.map((group) => group.length));
  const width = groups.length * BOX.width + (groups.length - 1) * GAP.x + 2 * EDGE.x;
  const height = rows * BOX.height + (rows - 1) * GAP.y + 2 * EDGE.y;
  const places = new Map();
  groups.forEach((group, column) => group.forEach((name, row) => {
    const free = (rows - group.length) * (BOX.height + GAP.y);
    places.set(name, { x: EDGE.x + column * (BOX.width + GAP.x), y: EDGE.y + free / 2 + row * (BOX.height + GAP.y), column });
  }));
  const known = edges.filter((edge) => places.has(edge.from) && places.has(edge.to));
  return h('figure', { class: 'map', 'data-key': 'map' },
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Map of services' },
      h('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': summary(known) },
        h('defs', null, ['call', 'event', 'job'].map((kind) => h('marker', {
          id: `head-${kind}`, class: `head ${kind}`, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto-start-reverse',
        }, h('path', { d: 'M0 0 L8 4 L0 8 z' })))),
        known.map((edge, index) => line(edge, places, index)),
        nodes.filter((node) => places.has(node.name)).map((node) => box(node, places.get(node.name), any.has(node.name))))),
    h('figcaption', null, legend('call', 'synchronous: calls'), legend('event', 'asynchronous: events'), legend('job', 'asynchronous: jobs'),
      h('span', null, 'bold: busy now'), h('span', null, '∗ may call every service')));
}

function summary(edges) {
  const of = (kind) => edges.filter((edge) => edge.kind === kind).length;
  return `Services in the order of starting, with ${of('call')} synchronous and ${of('event') + of('job')} asynchronous connections; the table below lists them.`;
}

function legend(kind, text) {
  return h('span', null, h('svg', { width: 40, height: 10, 'aria-hidden': 'true' }, h('path', { class: `edge ${kind}`, d: 'M1 5 H38' })), ` ${text}`);
}

function box(node, { x, y }, any) {
  const sign = { good: '●', fair: '◐', bad: '▲' }[node.kind] ?? '○';
  return h('g', { 'data-key': node.name, class: `node ${node.kind}`, transform: `translate(${x} ${y})` },
    h('rect', { width: BOX.width, height: BOX.height, rx: 8 }),
    h('text', { x: 14, y: 25, class: 'name' }, `${sign} ${short(node.name)}${any ? ' ∗' : ''}`),
    h('text', { x: 14, y: 46, class: 'note' }, node.note));
}

function line(edge, places, index) {
  const [a, b] = [places.get(edge.from), places.get(edge.to)];
  // Lines of one pair and of one box lie beside each other.
  const shift = { call: -14, event: 2, job: 16 }[edge.kind] + ((index % 3) - 1) * 4;
  const [ya, yb] = [a.y + BOX.height / 2 + shift, b.y + BOX.height / 2 + shift];
  let path;
  let middle;
  if (a.column === b.column) {
    const bend = GAP.x * 0.45 + (index % 4) * 7;
    const x = a.x + BOX.width;
    path = `M${x} ${ya} C${x + bend} ${ya} ${x + bend} ${yb} ${x + 2} ${yb}`;
    middle = [x + bend * 0.76, (ya + yb) / 2];
  } else {
    const right = b.column > a.column;
    const [xa, xb] = right ? [a.x + BOX.width, b.x - 2] : [a.x, b.x + BOX.width + 2];
    const bend = (xb - xa) / 2;
    path = `M${xa} ${ya} C${xa + bend} ${ya} ${xb - bend} ${yb} ${xb} ${yb}`;
    middle = [(xa + xb) / 2, (ya + yb) / 2];
  }
  return h('g', { 'data-key': edge.key, class: edge.busy ? 'busy' : null },
    h('path', { class: `edge ${edge.kind}`, d: path, 'marker-end': `url(#head-${edge.kind})` }),
    edge.label && h('text', { x: middle[0], y: middle[1] - 4, class: 'count' }, edge.label));
}
