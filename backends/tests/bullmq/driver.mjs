// Does with the real BullMQ what the Rust test asks for: one JSON request a line on stdin, one JSON answer a line on stdout.
import { createInterface } from 'node:readline';
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq';

const connection = { host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
const queues = new Map();

const queue = (name) => {
  if (!queues.has(name)) queues.set(name, new Queue(name, { connection }));
  return queues.get(name);
};

// What a job's name makes of it.
const kinds = {
  echo: async (job) => ({ echo: job.data }),
  flaky: async (job) => {
    if (job.attemptsMade < 2) throw new Error(`not yet: ${job.attemptsMade}`);
    return 'at last';
  },
  hopeless: async () => {
    throw new Error('never');
  },
  hang: () => new Promise(() => {}),
};

// The routes of bull-board's API, which a web server would be given.
function board(names) {
  let routes, shown;
  const server = {
    setQueues: (given) => ((shown = given), server),
    setApiRoutes: (given) => ((routes = given), server),
  };
  for (const name of ['setViewsPath', 'setStaticPath', 'setEntryRoute', 'setErrorHandler', 'setUIConfig']) {
    server[name] = () => server;
  }
  createBullBoard({
    queues: names.map((name) => new BullMQAdapter(queue(name))),
    serverAdapter: server,
    options: { uiBasePath: '.' },
  });
  const route = routes.find(({ method, route }) => method === 'get' && route === '/api/queues');
  return async (query) => (await route.handler({ queues: shown, query, params: {}, body: {}, headers: {} })).body;
}

const worked = [];
const answers = {
  add: async ({ name, job, data, opts }) => (await queue(name).add(job, data, opts)).id,
  counts: ({ name }) => queue(name).getJobCounts(),
  job: async ({ name, id }) => {
    const job = await queue(name).getJob(id);
    return job && { ...job.toJSON(), state: await job.getState(), returnvalue: job.returnvalue };
  },
  retry: async ({ name, id }) => (await queue(name).getJob(id)).retry(),
  pause: ({ name }) => queue(name).pause(),
  resume: ({ name }) => queue(name).resume(),
  version: ({ name }) => queue(name).getVersion(),
  upsert: ({ name, id, repeat, template }) => queue(name).upsertJobScheduler(id, repeat, template).then((job) => job.id),
  schedulers: ({ name }) => queue(name).getJobSchedulers(),
  board: ({ names, query }) => board(names)(query ?? {}),
  // Starts a worker; `order` answers what it has begun, in order.
  work: async ({ name, opts }) => {
    const worker = new Worker(
      name,
      (job) => {
        worked.push(job.id);
        return kinds[job.name](job);
      },
      { connection, ...opts },
    );
    worker.on('error', (error) => console.error(error));
    await worker.waitUntilReady();
  },
  order: async () => worked,
  flow: async ({ flow }) => (await new FlowProducer({ connection }).add(flow)).job.id,
  limit: ({ name, max, duration }) => queue(name).setGlobalRateLimit(max, duration),
  concurrency: ({ name, max }) => queue(name).setGlobalConcurrency(max),
  // Waits as a producer does that wants the result.
  result: async ({ name, id }) => {
    const events = new QueueEvents(name, { connection });
    await events.waitUntilReady();
    const job = await queue(name).getJob(id);
    return job.waitUntilFinished(events, 20_000).then(
      (value) => ({ value }),
      (error) => ({ error: error.message }),
    );
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await answers[op](rest)) ?? null };
  } catch (error) {
    answer = { error: error.stack };
  }
  console.log(JSON.stringify(answer));
}
process.exit(0);
