-- What the hosts of a platform share. Run by every host that starts, one after the other.

CREATE TABLE IF NOT EXISTS revisions (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  last BIGINT NOT NULL CHECK (last >= 0)
);
INSERT INTO revisions (only_row, last) VALUES (1, 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS facts (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  -- None: removed.
  value BYTEA,
  revision BIGINT NOT NULL UNIQUE,
  expires_at BIGINT,
  changed_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (kind, key)
);
CREATE INDEX IF NOT EXISTS facts_expire ON facts (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS facts_removed ON facts (changed_at) WHERE value IS NULL;

CREATE TABLE IF NOT EXISTS hosts (
  host TEXT PRIMARY KEY,
  address TEXT NOT NULL,
  state TEXT NOT NULL,
  expires_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE IF NOT EXISTS token_uses (
  id TEXT PRIMARY KEY,
  used BIGINT NOT NULL CHECK (used > 0),
  expires_at BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS invitations (
  id TEXT PRIMARY KEY,
  -- SHA-256.
  secret_hash BYTEA NOT NULL CHECK (octet_length(secret_hash) = 32),
  services TEXT[] NOT NULL,
  uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
  expires_at BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS components (
  digest TEXT PRIMARY KEY,
  bytes BYTEA NOT NULL
);
-- The server would compress megabytes while a host waits.
ALTER TABLE components ALTER COLUMN bytes SET STORAGE EXTERNAL;
