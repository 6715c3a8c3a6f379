-- The read model: counters kept from events. Nothing here is the truth about anything; it can be counted again.
-- Instants are milliseconds since the Unix epoch; an hour is the instant at which it begins.
-- Events may come in any order, so every row may be made by any of them, and a counter may be below zero for a moment.

-- Events that have been counted, until they can no longer be delivered again.
CREATE TABLE inbox (
  id TEXT PRIMARY KEY,
  at BIGINT NOT NULL
);
CREATE INDEX inbox_age ON inbox (at);

CREATE TABLE post_stats (
  post_id TEXT PRIMARY KEY,
  author_id TEXT,
  likes BIGINT NOT NULL DEFAULT 0,
  comments BIGINT NOT NULL DEFAULT 0,
  deliveries BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT,
  deleted_at BIGINT
);

CREATE TABLE user_stats (
  user_id TEXT PRIMARY KEY,
  posts BIGINT NOT NULL DEFAULT 0,
  likes_given BIGINT NOT NULL DEFAULT 0,
  likes_received BIGINT NOT NULL DEFAULT 0,
  comments_given BIGINT NOT NULL DEFAULT 0,
  comments_received BIGINT NOT NULL DEFAULT 0,
  followers BIGINT NOT NULL DEFAULT 0,
  following BIGINT NOT NULL DEFAULT 0,
  -- Home timelines that the user's posts have reached.
  reach BIGINT NOT NULL DEFAULT 0,
  -- When the account was deleted. The row stays, for events that come late would make it again.
  deleted_at BIGINT
);

CREATE TABLE hourly (
  metric TEXT NOT NULL,
  hour BIGINT NOT NULL,
  value BIGINT NOT NULL,
  PRIMARY KEY (metric, hour)
);

-- What a post got in an hour: the ranking of top posts.
CREATE TABLE post_hours (
  hour BIGINT NOT NULL,
  post_id TEXT NOT NULL,
  likes BIGINT NOT NULL DEFAULT 0,
  comments BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (hour, post_id)
);

-- Who did something in an hour.
CREATE TABLE activity (
  hour BIGINT NOT NULL,
  user_id TEXT NOT NULL,
  PRIMARY KEY (hour, user_id)
);
CREATE INDEX activity_by_user ON activity (user_id);

-- Names of custom events; there is a limit to them, as each is a metric.
CREATE TABLE event_names (
  name TEXT PRIMARY KEY
);

CREATE TABLE events (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL REFERENCES event_names (name),
  user_id TEXT NOT NULL,
  properties TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
