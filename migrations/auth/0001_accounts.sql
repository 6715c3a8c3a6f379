-- Accounts, how people prove who they are, and the log of what concerns their security.
-- Instants are milliseconds since the Unix epoch. Secrets are kept as digests only.

CREATE TABLE users (
  id                  TEXT PRIMARY KEY,
  username            TEXT NOT NULL,
  -- What names are compared by: lower case.
  username_key        TEXT NOT NULL UNIQUE,
  email               TEXT,
  email_key           TEXT UNIQUE,
  display_name        TEXT NOT NULL,
  bio                 TEXT NOT NULL DEFAULT '',
  -- Argon2id, PHC string.
  password_hash       TEXT NOT NULL,
  created_at          BIGINT NOT NULL,
  updated_at          BIGINT NOT NULL,
  password_changed_at BIGINT NOT NULL,
  CHECK ((email IS NULL) = (email_key IS NULL))
);
CREATE INDEX users_by_creation ON users (created_at, id);

CREATE TABLE user_roles (
  user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role       TEXT NOT NULL,
  granted_at BIGINT NOT NULL,
  -- The subject that granted it, with its kind: user:…, operator:…, or config for admin_emails.
  granted_by TEXT NOT NULL,
  PRIMARY KEY (user_id, role)
);

-- The secret itself is derived from enrolment_id by a key that stays in the host.
CREATE TABLE totp (
  user_id      TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  enrolment_id TEXT NOT NULL,
  created_at   BIGINT NOT NULL,
  -- Null until the first code has been entered: not asked for at login before that.
  confirmed_at BIGINT,
  -- The time step of the last accepted code; only later ones are accepted.
  last_step    BIGINT
);

CREATE TABLE recovery_codes (
  user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  -- HMAC-SHA256 by a key that stays in the host.
  digest     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  used_at    BIGINT,
  PRIMARY KEY (user_id, digest)
);

-- A password was right, a second factor is awaited.
CREATE TABLE login_challenges (
  digest     TEXT PRIMARY KEY,
  user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  tries      BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at    BIGINT
);
CREATE INDEX login_challenges_by_expiry ON login_challenges (expires_at);

-- Failures to prove who one is, by account name or address; also of accounts that do not exist.
CREATE TABLE login_attempts (
  id           TEXT PRIMARY KEY,
  failures     BIGINT NOT NULL,
  last_at      BIGINT NOT NULL,
  locked_until BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX login_attempts_by_age ON login_attempts (last_at);

CREATE TABLE audit_events (
  id         TEXT PRIMARY KEY,
  at         BIGINT NOT NULL,
  kind       TEXT NOT NULL,
  -- No foreign keys: the log outlives what it speaks of.
  user_id    TEXT,
  client_id  TEXT,
  address    TEXT,
  user_agent TEXT,
  detail     TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_events_by_user ON audit_events (user_id, id);
CREATE INDEX audit_events_by_age ON audit_events (at);
