-- Notifications, what people want to be told how, webhook endpoints and their deliveries.
-- Ids are UUID v7: their text order is their order in time, so an id is also a cursor.
-- Instants are milliseconds since the Unix epoch.

CREATE TABLE notifications (
  user_id TEXT NOT NULL,
  id TEXT NOT NULL,
  -- What it is about, once: the same thing told again is not told twice.
  dedupe_key TEXT NOT NULL,
  type TEXT NOT NULL,
  actor_id TEXT,
  post_id TEXT,
  title TEXT,
  body TEXT,
  -- A JSON object with what else the sender said.
  data TEXT NOT NULL DEFAULT '{}',
  created_at BIGINT NOT NULL,
  read_at BIGINT,
  PRIMARY KEY (user_id, id),
  UNIQUE (user_id, dedupe_key)
);
CREATE INDEX notifications_unread ON notifications (user_id, id) WHERE read_at IS NULL;

-- What a user switched off (or on again), per type ('*' is every type) and channel. Absent is on.
CREATE TABLE preferences (
  user_id TEXT NOT NULL,
  type TEXT NOT NULL,
  channel TEXT NOT NULL CHECK (channel IN ('inbox', 'stream', 'webhook')),
  enabled BIGINT NOT NULL CHECK (enabled IN (0, 1)),
  PRIMARY KEY (user_id, type, channel)
);

-- When a user is not to be disturbed: minutes of their day, which may span midnight.
CREATE TABLE quiet_hours (
  user_id TEXT PRIMARY KEY,
  utc_offset_minutes BIGINT NOT NULL CHECK (utc_offset_minutes BETWEEN -720 AND 840),
  start_minute BIGINT NOT NULL CHECK (start_minute BETWEEN 0 AND 1439),
  end_minute BIGINT NOT NULL CHECK (end_minute BETWEEN 0 AND 1439)
);

-- Where webhooks go. Secrets are not here: they are derived from a key in the host.
CREATE TABLE endpoints (
  id TEXT PRIMARY KEY,
  owner_id TEXT NOT NULL,
  -- 'user': gets the owner's notifications. 'service': gets everybody's, of the types it names.
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('user', 'service')),
  url TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  -- JSON array of types; ["*"] is all.
  types TEXT NOT NULL,
  secret_version BIGINT NOT NULL DEFAULT 1,
  -- When the present secret replaced the one before, which is good for another day.
  rotated_at BIGINT,
  disabled_at BIGINT,
  disabled_reason TEXT,
  created_at BIGINT NOT NULL
);
CREATE INDEX endpoints_by_owner ON endpoints (owner_id, id);
CREATE INDEX endpoints_of_services ON endpoints (owner_kind) WHERE owner_kind = 'service';

-- One webhook to one endpoint: the outcome of its attempts, which the queue makes.
CREATE TABLE deliveries (
  id TEXT PRIMARY KEY,
  endpoint_id TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
  owner_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  dedupe_key TEXT NOT NULL,
  type TEXT NOT NULL,
  payload TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  -- The queue's job that is on it; another one after a replay.
  job_id TEXT NOT NULL,
  attempts BIGINT NOT NULL DEFAULT 0,
  response_status BIGINT,
  error TEXT,
  replays BIGINT NOT NULL DEFAULT 0,
  not_before BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (endpoint_id, user_id, dedupe_key)
);
CREATE INDEX deliveries_by_owner ON deliveries (owner_id, id);
CREATE INDEX deliveries_failed ON deliveries (owner_id, id) WHERE status = 'failed';
CREATE INDEX deliveries_pending ON deliveries (updated_at) WHERE status = 'pending';
