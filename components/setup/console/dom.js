// Making and updating the page. Text becomes text nodes, never markup: job data and log lines are hostile.

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'g', 'path', 'rect', 'circle', 'text', 'tspan', 'defs', 'marker']);
const REFUSED = /^(on|style$|src$|action$|formaction$|xlink:)/i;
const handlers = new WeakMap();

/** An element. `onclick: f` listens, `true` is an empty attribute, `false`, `null` and `undefined` are none. */
export function h(tag, props, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === 'function') listen(element, name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) set(element, name, String(value));
  }
  element.append(...nodes(children));
  return element;
}

function set(element, name, value) {
  if (REFUSED.test(name)) throw new Error(`the attribute ${name} is not set here`);
  if (name === 'href' && !value.startsWith('#')) throw new Error('links lead to views only');
  element.setAttribute(name, value);
}

/** Nodes of anything nested: strings and numbers as text, nothing for what is absent. */
export function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== true)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

function listen(element, type, handler) {
  const own = handlers.get(element) ?? {};
  if (!own[type]) element.addEventListener(type, (event) => handlers.get(element)[type](event));
  own[type] = handler;
  handlers.set(element, own);
}

/** Makes the children of `parent` equal to `next`, keeping what is there: focus, what is typed, what is open. */
export function show(parent, ...next) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let at = parent.firstChild;
  for (const node of nodes(next)) {
    const key = node.dataset?.key;
    const kept = key ? keyed.get(key) : at && !at.dataset?.key ? at : null;
    if (kept && same(kept, node)) {
      if (kept === at) at = at.nextSibling;
      else parent.insertBefore(kept, at);
      update(kept, node);
    } else {
      parent.insertBefore(node, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function same(a, b) {
  return a.nodeName === b.nodeName && a.dataset?.key === b.dataset?.key && a.id === b.id;
}

function update(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) if (name !== 'open' && !next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const [type, handler] of Object.entries(handlers.get(next) ?? {})) listen(old, type, handler);
  if (!['INPUT', 'SELECT', 'TEXTAREA'].includes(old.nodeName)) show(old, ...next.childNodes);
}

/** A table with a caption and headers. `columns` are names or `{ name, number: true }`. */
export function table(caption, columns, rows, { empty = 'Nothing here.', key } = {}) {
  const named = columns.map((column) => (typeof column === 'string' ? { name: column } : column));
  if (rows.length === 0) return h('div', { 'data-key': key, class: 'empty' }, h('h3', null, caption), h('p', null, empty));
  const cell = (value, index) => {
    const props = { class: named[index]?.number ? 'number' : null };
    return index === 0 ? h('th', { ...props, scope: 'row' }, value) : h('td', props, value);
  };
  return h('div', { class: 'scroll', role: 'region', tabindex: 0, 'aria-label': caption, 'data-key': key },
    h('table', null, h('caption', null, caption),
      h('thead', null, h('tr', null, named.map((column) => h('th', { scope: 'col', class: column.number ? 'number' : null }, column.name)))),
      h('tbody', null, rows.map((row) => h('tr', { 'data-key': row.key, class: row.class }, row.cells.map(cell))))));
}

/** A state as a sign, a word and a colour: the colour says nothing by itself. */
export function state(word, kind) {
  const sign = { good: '●', fair: '◐', bad: '▲', off: '○' }[kind] ?? '○';
  return h('span', { class: `state ${kind}` }, h('span', { 'aria-hidden': 'true' }, `${sign} `), word);
}

export function button(label, onclick, props) {
  return h('button', { type: 'button', onclick, ...props }, label);
}

/** An instant in milliseconds as a time, with the day where it is another. */
export function time(ms) {
  if (!ms) return '–';
  const at = new Date(ms);
  const today = at.toDateString() === new Date().toDateString();
  const text = today ? at.toLocaleTimeString() : at.toLocaleString();
  return h('time', { datetime: at.toISOString(), title: at.toISOString() }, text);
}

export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return '–';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60000);
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
}

export const count = (value) => (value ?? 0).toLocaleString('en');
export const percent = (share) => (Number.isFinite(share) ? `${(share * 100).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %` : '–');
export const short = (name) => String(name ?? '').replace(/^exprsn-/, '');
export const digest = (hex) => (hex ? h('code', { title: hex }, hex.slice(0, 12)) : '–');

/** JSON laid out; what is none stays as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
