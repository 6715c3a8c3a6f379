// Grants and certificates: what each service may, taken back and given again one by one.

import { get, part, post, remove } from './api.js';
import { confirm, field } from './dialog.js';
import { button, digest, h, short, state, table, time } from './dom.js';

export const title = 'Grants';

export async function load({ rest }) {
  const [components, certificates] = await Promise.all([get('ca/components'), get('ca/certificates?limit=100')]);
  return { components: components.items, certificates: certificates.items, chosen: rest[0] };
}

export function render({ components, certificates, chosen }, context) {
  const live = components.filter((one) => one.live);
  const found = live.find((one) => one.service === chosen);
  return [list(live, chosen), found ? detail(found, context) : null, admissions(components), certificateList(certificates, context)];
}

function list(live, chosen) {
  const rows = live.map((one) => ({
    key: one.service, class: one.service === chosen ? 'chosen' : null,
    cells: [h('a', { href: `#/grants/${part(one.service)}`, 'aria-current': one.service === chosen ? 'true' : null }, short(one.service)), Object.keys(one.grants ?? {}).join(', '),
      one.withheld.length ? state(one.withheld.map((held) => (held.grant === '*' ? 'everything' : held.grant)).join(', '), 'bad') : state('nothing', 'good')],
  }));
  return table('Grants of what runs', ['Service', 'Granted', 'Withheld'], rows, { key: 'services' });
}

/** What can be withheld of a grant, as exprsn-ca names it. */
function scopes(capability, grant) {
  const texts = (value) => (typeof value === 'string' ? [value] : Array.isArray(value) ? value.flatMap(texts) : value && typeof value === 'object' ? Object.values(value).flatMap(texts) : []);
  const named = (kind, value) => [...new Set(texts(value))].sort().map((text) => `${kind}:${text}`);
  if (capability === 'http') return [...named('call', (grant.call ?? []).map((call) => call.service)), ...named('egress', grant.egress ?? [])];
  if (capability === 'ca') return [];
  return named(capability === 'sockets' ? 'egress' : capability, grant);
}

function detail(component, context) {
  const name = component.service;
  const withheld = new Map(component.withheld.map((one) => [one.grant, one]));
  const revoke = async (grant) => {
    const what = grant === '*' ? 'everything' : grant;
    const asked = await confirm({
      title: `Withhold ${what} from ${short(name)}?`, text: grant === '*' ? 'Requests are answered 503 from now on.' : 'It counts at the next call; nothing is restarted.',
      fields: [field('Reason, for the record', 'reason', { maxlength: 500 })], verb: 'Withhold', danger: true,
    });
    if (asked) await context.act(`Withholding ${what} from ${short(name)}`, async () => {
      await post(`ca/components/${part(name)}/revocations`, { grant, reason: asked.reason || null });
      return `${what} is withheld from ${short(name)}.`;
    });
  };
  const restore = (grant) => context.act(`Restoring ${grant} of ${short(name)}`, async () => {
    await remove(`ca/components/${part(name)}/revocations?grant=${part(grant)}`);
    return `${grant === '*' ? 'Everything' : grant} is given back to ${short(name)}.`;
  });
  const row = (grant, indent) => {
    const held = withheld.get(grant);
    return {
      key: grant,
      cells: [h('code', { class: indent ? 'scope' : null }, grant === '*' ? 'everything' : grant),
        held ? [state('withheld', 'bad'), h('small', null, `by ${held.withheldBy}, `, time(held.withheldAt * 1000)), held.reason && h('small', null, held.reason)] : state('in force', 'good'),
        held ? button('Restore', () => restore(grant), { 'data-key': 'restore', 'aria-label': `Restore ${grant}` })
          : button('Revoke …', () => revoke(grant), { 'data-key': 'revoke', 'aria-label': `Revoke ${grant === '*' ? 'everything' : grant}` })],
    };
  };
  const rows = [row('*', false)];
  for (const [capability, grant] of Object.entries(component.grants ?? {})) {
    rows.push(row(capability, false), ...scopes(capability, grant ?? {}).map((scope) => row(scope, true)));
  }
  for (const grant of withheld.keys()) if (!rows.some((one) => one.key === grant)) rows.push(row(grant, true));
  return h('section', { class: 'detail', 'data-key': `detail ${name}`, 'aria-labelledby': 'detail' }, h('h2', { id: 'detail' }, short(name)),
    table(`Grants of ${short(name)}`, ['Grant', 'State', 'Do'], rows, { key: 'grants' }));
}

function admissions(components) {
  const rows = components.map((one) => ({
    key: `${one.service} ${one.digest} ${one.certificate.serial}`,
    cells: [short(one.service), one.version, digest(one.digest), one.live ? state('runs', 'good') : state('does not run', 'off'),
      one.publisher ?? (one.signer ? `signed by ${one.signer.slice(0, 12)}…` : 'unsigned'),
      one.decision ? `${one.decision.by} (${one.decision.trust})` : 'platform.toml', one.refused.join(', ') || '–'],
  }));
  return table('Admissions', ['Service', 'Version', 'Digest', 'State', 'Publisher', 'Decided by', 'Refused'], rows, { key: 'admissions' });
}

function certificateList(certificates, context) {
  const revoke = async (one) => {
    const asked = await confirm({
      title: `Revoke the certificate of ${short(one.service)} ${one.version}?`, text: 'For good: exactly these bytes never run again. Swap to another version first where it runs.',
      fields: [field('Reason, for the record', 'reason', { maxlength: 500 })], verb: 'Revoke for good', danger: true,
    });
    if (asked) await context.act(`Revoking ${one.serial.slice(0, 12)}`, async () => {
      await post(`ca/certificates/${part(one.serial)}/revoke`, { reason: asked.reason || null });
      return `The certificate ${one.serial.slice(0, 12)} is revoked.`;
    });
  };
  const now = Date.now() / 1000;
  const word = (one) => (one.revokedAt ? state('revoked', 'bad') : one.notAfter < now ? state('expired', 'off') : state('good', 'good'));
  const rows = certificates.map((one) => ({
    key: one.serial,
    cells: [h('code', { title: one.serial }, one.serial.slice(0, 12)), one.kind, one.service ? `${short(one.service)} ${one.version}` : one.subject, time(one.notAfter * 1000),
      [word(one), one.reason && h('small', null, one.reason)],
      one.kind === 'component' && !one.revokedAt ? button('Revoke …', () => revoke(one), { 'aria-label': `Revoke the certificate ${one.serial.slice(0, 12)} of ${short(one.service)}` }) : ''],
  }));
  return table('Certificates', ['Serial', 'Kind', 'For', 'Expires', 'State', 'Do'], rows, { key: 'certificates' });
}
