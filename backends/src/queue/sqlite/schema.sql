-- The broker's tables: queues and jobs, events and subscriptions.

CREATE TABLE IF NOT EXISTS queues (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  -- Defaults of its jobs.
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  backoff_kind INTEGER NOT NULL CHECK (backoff_kind IN (0, 1)),
  backoff_ms INTEGER NOT NULL CHECK (backoff_ms >= 0),
  timeout_ms INTEGER NOT NULL CHECK (timeout_ms >= 1),
  keep_completed INTEGER NOT NULL CHECK (keep_completed >= 0),
  keep_failed INTEGER NOT NULL CHECK (keep_failed >= 0),
  -- Its jobs by state, kept with every change: counting a million rows takes too long.
  waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
  delayed INTEGER NOT NULL DEFAULT 0 CHECK (delayed >= 0),
  prioritized INTEGER NOT NULL DEFAULT 0 CHECK (prioritized >= 0),
  active INTEGER NOT NULL DEFAULT 0 CHECK (active >= 0),
  completed INTEGER NOT NULL DEFAULT 0 CHECK (completed >= 0),
  failed INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0)
) STRICT;

CREATE TABLE IF NOT EXISTS jobs (
  -- Rises with every job added.
  seq INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  id TEXT NOT NULL,
  -- 0 waiting, 1 delayed, 2 active, 3 completed, 4 failed.
  state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
  -- What orders jobs within their state: the priority of a waiting one, when a delayed one is due, when an active one's
  -- lease ends, when a completed or failed one finished.
  rank INTEGER NOT NULL,
  -- First in, first out within a rank; new whenever the job joins the end of the line.
  position INTEGER NOT NULL,
  -- Names the claim of an active job.
  lease INTEGER CHECK ((lease IS NOT NULL) = (state = 2)),
  priority INTEGER NOT NULL CHECK (priority >= 0),
  attempts_made INTEGER NOT NULL DEFAULT 0 CHECK (attempts_made >= 0),
  -- Times its lease expired.
  stalls INTEGER NOT NULL DEFAULT 0 CHECK (stalls >= 0),
  -- Null: the queue's default.
  attempts INTEGER CHECK (attempts >= 1),
  backoff_kind INTEGER CHECK (backoff_kind IN (0, 1)),
  backoff_ms INTEGER CHECK (backoff_ms >= 0),
  timeout_ms INTEGER CHECK (timeout_ms >= 1),
  -- Whether its id is to be remembered when it goes: whoever delivered it may deliver it again.
  relayed INTEGER NOT NULL CHECK (relayed IN (0, 1)),
  created_at INTEGER NOT NULL,
  processed_at INTEGER,
  name TEXT NOT NULL,
  origin TEXT,
  trace TEXT,
  subject TEXT,
  failed_reason TEXT,
  return_value TEXT,
  data TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS jobs_by_id ON jobs (queue, id);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (queue, state, rank, position);

-- Ids of delivered messages that have gone: queue 0 holds events'. Two generations are kept.
CREATE TABLE IF NOT EXISTS seen (
  generation INTEGER NOT NULL,
  queue INTEGER NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (generation, queue, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS broker (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  -- Times the host was started.
  runs INTEGER NOT NULL,
  -- The generation of `seen` that is written now, and when it began: null until the first tidying after that.
  generation INTEGER NOT NULL,
  generation_at INTEGER
) STRICT;
INSERT OR IGNORE INTO broker (only, runs, generation) VALUES (1, 0, 1);

CREATE TABLE IF NOT EXISTS recurrences (
  queue TEXT NOT NULL,
  name TEXT NOT NULL,
  cron TEXT NOT NULL,
  data TEXT NOT NULL,
  next_at INTEGER NOT NULL,
  PRIMARY KEY (queue, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY,
  source TEXT NOT NULL,
  id TEXT NOT NULL,
  topic TEXT NOT NULL,
  subject TEXT,
  time INTEGER NOT NULL,
  trace TEXT,
  data TEXT NOT NULL,
  UNIQUE (source, id)
) STRICT;

CREATE TABLE IF NOT EXISTS subscriptions (
  service TEXT NOT NULL,
  topic TEXT NOT NULL,
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  PRIMARY KEY (service, topic)
) STRICT, WITHOUT ROWID;
