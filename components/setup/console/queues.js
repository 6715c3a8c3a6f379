// Queues: counts, jobs, and what is done about those that failed.

import { get, part, post, remove } from './api.js';
import { confirm } from './dialog.js';
import { button, count, h, pretty, state, table, time } from './dom.js';

export const title = 'Queues';

const STATES = ['failed', 'waiting', 'prioritized', 'delayed', 'active', 'completed'];
export const KIND = { failed: 'bad', completed: 'good', active: 'fair', waiting: 'off', delayed: 'off', prioritized: 'off', paused: 'off' };
const RETRIED_AT_ONCE = 200;

export async function load({ rest }) {
  const [name, wanted] = rest;
  const shown = STATES.includes(wanted) ? wanted : 'failed';
  const [queues, jobs] = await Promise.all([get('queues'), name ? get(`queues/${part(name)}/jobs?state=${shown}&limit=100`) : null]);
  return { queues, jobs: jobs?.items, name, shown };
}

export function render({ queues, jobs, name, shown }, context) {
  const chosen = queues.find((one) => one.name === name);
  return [list(queues, name), chosen ? detail(chosen, jobs, shown, context) : name ? h('p', { class: 'problem' }, `No queue ${name} has jobs or a worker.`) : null];
}

function list(queues, name) {
  const number = (text) => ({ name: text, number: true });
  const rows = queues.map((one) => ({
    key: one.name, class: one.name === name ? 'chosen' : null,
    cells: [h('a', { href: `#/queues/${part(one.name)}/failed`, 'aria-current': one.name === name ? 'true' : null }, one.name), one.service || 'no worker here',
      count(one.waiting + one.prioritized), count(one.delayed), count(one.active), count(one.completed),
      one.failed ? h('strong', { class: 'alert' }, `▲ ${count(one.failed)}`) : '0', one.paused ? state('paused', 'fair') : state('running', 'good')],
  }));
  return table('Queues; those named events: hold deliveries of events', ['Queue', 'Worker', number('Waiting'), number('Delayed'), number('Active'), number('Completed'), number('Dead letters'), 'State'], rows, { key: 'queues' });
}

function detail(queue, jobs, shown, context) {
  const at = `queues/${part(queue.name)}`;
  const toggle = queue.paused ? ['Resume', 'resume'] : ['Pause', 'pause'];
  return h('section', { class: 'detail', 'data-key': `detail ${queue.name}`, 'aria-labelledby': 'detail' },
    h('h2', { id: 'detail' }, queue.name),
    h('nav', { 'aria-label': 'States of jobs', class: 'tabs' }, STATES.map((one) => h('a', { href: `#/queues/${part(queue.name)}/${one}`, 'aria-current': one === shown ? 'true' : null }, `${one} ${count(queue[one])}`))),
    h('div', { class: 'row' },
      button(toggle[0], () => context.act(`${toggle[0]} ${queue.name}`, () => post(`${at}/${toggle[1]}`)), { id: 'pause' }),
      shown === 'failed' && jobs.length > 0 && button('Retry all shown', () => retryAll(queue, jobs, context), { id: 'retry-all' })),
    table(`Jobs that are ${shown} in ${queue.name}`, ['Job', 'Added', 'Attempt', 'Data', 'Outcome', 'Do'], jobs.map((job) => row(job, at, context)), { key: 'jobs', empty: `No job is ${shown}.` }));
}

function row(job, at, context) {
  const path = `${at}/jobs/${part(job.id)}`;
  const drop = async () => {
    const sure = await confirm({ title: 'Remove this job?', text: `${job.name} ${job.id} will not be done.`, verb: 'Remove', danger: true });
    if (sure) await context.act(`Removing ${job.id}`, async () => { await remove(path); return `Job ${job.id} is removed.`; });
  };
  const again = () => context.act(`Retrying ${job.id}`, async () => { await post(`${path}/retry`); return `Job ${job.id} waits again.`; });
  return {
    key: job.id,
    cells: [[h('span', { class: 'job' }, job.name), h('code', null, job.id)], time(job.createdAt), `${job.attempt} of ${job.attempts}`, data(job), outcome(job),
      h('div', { class: 'row' },
        job.state === 'failed' && button('Retry', again, { 'aria-label': `Retry ${job.name} ${job.id}`, 'data-key': 'retry' }),
        job.state !== 'active' && button('Remove', drop, { 'aria-label': `Remove ${job.name} ${job.id}`, 'data-key': 'remove' }))],
  };
}

/** A job's data as the text that it is. */
export function data(job) {
  const line = job.data.length > 60 ? `${job.data.slice(0, 60)}…` : job.data;
  return h('details', null, h('summary', null, h('code', null, line)), h('pre', { tabindex: 0 }, pretty(job.data)));
}

export function outcome(job) {
  return [state(job.state, KIND[job.state]), job.failedReason && h('pre', { class: 'reason' }, job.failedReason),
    job.returnValue && h('pre', null, job.returnValue), job.finishedAt && h('small', null, time(job.finishedAt))];
}

async function retryAll(queue, jobs, context) {
  const some = jobs.slice(0, RETRIED_AT_ONCE);
  const sure = await confirm({ title: `Retry ${some.length} jobs of ${queue.name}?`, text: 'Each waits again, with its attempts counted anew.', verb: 'Retry all' });
  if (!sure) return;
  await context.act(`Retrying ${some.length} jobs`, async () => {
    for (const job of some) await post(`queues/${part(queue.name)}/jobs/${part(job.id)}/retry`);
    return `${some.length} jobs wait again.`;
  });
}
