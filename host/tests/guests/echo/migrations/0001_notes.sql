CREATE TABLE notes (
  id TEXT PRIMARY KEY,
  text TEXT NOT NULL UNIQUE,
  author_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  indexed BIGINT NOT NULL DEFAULT 0,
  seen BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX notes_by_time ON notes (created_at, id);
CREATE TABLE inbox (id TEXT PRIMARY KEY, at BIGINT NOT NULL);
CREATE TABLE idempotency_keys (
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status BIGINT,
  headers TEXT,
  body BLOB,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (principal, key)
);
