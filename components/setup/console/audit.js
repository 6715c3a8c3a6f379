// The audit log of exprsn-ca: who did what, and whether it is as it was written.

import { get, part } from './api.js';
import { button, h, table, time } from './dom.js';

export const title = 'Audit log';

export async function load({ rest }) {
  return get(`ca/audit?limit=50${rest[0] ? `&cursor=${part(rest[0])}` : ''}`);
}

export function render(page, context) {
  const check = () => context.act('Checking the log', async () => {
    let after = 0;
    let checked = 0;
    do {
      const told = await get(`ca/audit/verify?after=${after}`);
      checked += told.checked;
      if (!told.valid) throw new Error(`entry ${told.brokenAt} is not as it was written: ${told.reason}`);
      after = told.nextAfter;
    } while (after);
    return `All ${checked} entries are as they were written.`;
  });
  const rows = page.items.map((one) => ({
    key: String(one.seq),
    cells: [one.seq, time(one.at), one.actor, one.action, one.subject, h('details', null, h('summary', null, h('code', null, JSON.stringify(one.details).slice(0, 60))), h('pre', { tabindex: 0 }, JSON.stringify(one.details, null, 2)))],
  }));
  return [h('div', { class: 'row', 'data-key': 'do' }, button('Check the chain of hashes', check, { id: 'verify' })),
    table('Entries, newest first', [{ name: 'Entry', number: true }, 'At', 'Who', 'What', 'To what', 'Details'], rows, { key: 'entries' }),
    h('nav', { 'aria-label': 'Pages', class: 'row', 'data-key': 'pages' }, context.rest[0] && h('a', { href: '#/audit' }, 'Newest'), page.nextCursor && h('a', { href: `#/audit/${part(page.nextCursor)}` }, 'Older'))];
}
