// Events: the way of a post through the queues, who publishes and who receives what, and changes of services as they happen.

import { get, part } from './api.js';
import { field } from './dialog.js';
import { count, h, short, table, time } from './dom.js';
import { declared } from './edges.js';
import { rate, sum } from './metrics.js';
import { data, outcome } from './queues.js';

export const title = 'Events';

const INVOCATIONS = 'exprsn_invocations_total';

export async function load({ rest, sample }) {
  const wanted = rest[0] ?? '';
  const query = wanted.length >= 3 ? `?limit=100&contains=${part(wanted)}` : '?limit=100';
  const [jobs, queues, components, metrics] = await Promise.all([get(`jobs${query}`), get('queues'), get('ca/components'), sample()]);
  return { wanted, jobs: jobs.items, queues, components: components.items, metrics };
}

export function render(data, context) {
  return [trail(data), deliveries(data, context), topics(data), changes(context)];
}

function trail({ wanted, jobs }) {
  const follow = (event) => {
    event.preventDefault();
    location.hash = `#/events/${part(document.getElementById('field-follow').value.trim())}`;
  };
  // What a clock adds says nothing of what people do.
  const inOrder = wanted ? [...jobs].sort((a, b) => a.createdAt - b.createdAt) : jobs.filter((job) => !job.id.startsWith('repeat:')).slice(0, 20);
  const rows = inOrder.map((job) => ({
    key: `${job.queue} ${job.id}`,
    cells: [time(job.createdAt), h('a', { href: `#/queues/${part(job.queue)}/${job.state}` }, job.queue), job.name, `${job.attempt} of ${job.attempts}`, data(job), outcome(job)],
  }));
  const caption = wanted ? `The way of ${wanted} through the queues` : 'Latest jobs of all queues, without those of the clock';
  return h('section', { 'data-key': 'trail' }, h('h2', null, 'Follow something'),
    h('form', { onsubmit: follow, class: 'inline', role: 'search' }, field('Id of a post, a user, anything', 'follow', { value: wanted, minlength: 3, spellcheck: 'false' }),
      h('button', { type: 'submit' }, 'Follow')),
    table(caption, ['Added', 'Queue', 'Job', 'Attempt', 'Data', 'Outcome'], rows, { key: 'jobs', empty: wanted ? 'No job holds it: none was made, or what is done is not kept any more.' : 'No job lately.' }));
}

function deliveries({ queues, metrics }, { memory }) {
  const before = memory.samples.at(-2);
  const rows = queues.filter((one) => one.name.startsWith('events:')).map((one) => {
    const own = (outcome) => ({ service: one.service, trigger: 'event', ...(outcome && { outcome }) });
    const now = rate(before, metrics, INVOCATIONS, own());
    return {
      key: one.name,
      cells: [h('a', { href: `#/queues/${part(one.name)}/failed` }, short(one.service) || one.name), count(sum(metrics, INVOCATIONS, own('success'))), Number.isFinite(now) ? now.toFixed(1) : '…',
        count(sum(metrics, INVOCATIONS, own('failure'))), count(one.waiting + one.delayed), one.failed ? h('strong', { class: 'alert' }, `▲ ${count(one.failed)}`) : '0'],
    };
  });
  const number = (name) => ({ name, number: true });
  return table('Deliveries', ['Subscriber', number('Delivered'), number('Per second'), number('Failed attempts'), number('Waiting'), number('Dead letters')], rows, { key: 'deliveries' });
}

function topics({ components }) {
  const rows = declared(components).edges.filter((edge) => edge.kind === 'event').map((edge) => ({ key: edge.key, cells: [edge.what.join(', '), short(edge.from), short(edge.to)] }));
  return table('Who may tell whom what', ['Topics', 'Publisher', 'Subscriber'], rows, { key: 'topics' });
}

function changes({ memory }) {
  const rows = memory.changes.map((one) => ({ key: one.id, cells: [time(one.at), short(one.name), one.kind, one.status ?? '', one.version ?? '', one.reason ?? ''] }));
  return table('Changes of services since you came', ['At', 'Service', 'What', 'State', 'Version', 'Why'], rows, { key: 'changes', empty: 'Nothing has changed.' });
}
