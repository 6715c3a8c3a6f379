-- Sessions, OAuth clients, and the tokens issued to both.
-- A session is one sign-in of one person. A grant is the right that a client holds by it; refresh tokens of one grant are a family.

CREATE TABLE sessions (
  id               TEXT PRIMARY KEY,
  user_id          TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  -- Signed in through the JSON API, or at the page that OAuth clients send people to.
  kind             TEXT NOT NULL CHECK (kind IN ('api', 'browser')),
  -- SHA-256 of the browser's cookie.
  cookie_digest    TEXT UNIQUE,
  -- RFC 8176: how the person proved who they are, separated by spaces.
  methods          TEXT NOT NULL,
  address          TEXT,
  user_agent       TEXT,
  created_at       BIGINT NOT NULL,
  authenticated_at BIGINT NOT NULL,
  last_seen_at     BIGINT NOT NULL,
  expires_at       BIGINT NOT NULL,
  ended_at         BIGINT,
  CHECK (kind = 'browser' OR cookie_digest IS NULL)
);
CREATE INDEX sessions_by_user ON sessions (user_id, id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE clients (
  id                        TEXT PRIMARY KEY,
  name                      TEXT NOT NULL,
  -- SHA-256 of the secret; null for a public client.
  secret_digest             TEXT,
  auth_method               TEXT NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post')),
  -- JSON lists.
  redirect_uris             TEXT NOT NULL,
  post_logout_redirect_uris TEXT NOT NULL,
  -- Separated by spaces.
  grant_types               TEXT NOT NULL,
  scope                     TEXT NOT NULL,
  first_party               BIGINT NOT NULL DEFAULT 0 CHECK (first_party IN (0, 1)),
  client_uri                TEXT,
  created_at                BIGINT NOT NULL,
  updated_at                BIGINT NOT NULL,
  -- The subject that registered it, with its kind.
  created_by                TEXT NOT NULL,
  CHECK ((auth_method = 'none') = (secret_digest IS NULL))
);

CREATE TABLE consents (
  user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
  scope      TEXT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, client_id)
);

CREATE TABLE grants (
  id           TEXT PRIMARY KEY,
  user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  -- 'exprsn' for the JSON API, which is no registered client.
  client_id    TEXT NOT NULL,
  -- An online grant ends with its session; an offline one (offline_access) goes on.
  kind         TEXT NOT NULL CHECK (kind IN ('online', 'offline')),
  scope        TEXT NOT NULL,
  created_at   BIGINT NOT NULL,
  last_used_at BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  revoked_at   BIGINT
);
CREATE INDEX grants_by_session ON grants (session_id);
CREATE INDEX grants_by_user ON grants (user_id, id);
CREATE INDEX grants_by_client ON grants (client_id);
CREATE INDEX grants_by_expiry ON grants (expires_at);

CREATE TABLE refresh_tokens (
  digest     TEXT PRIMARY KEY,
  grant_id   TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at    BIGINT
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);

-- Live access tokens, so that they can be revoked before they expire.
CREATE TABLE access_tokens (
  -- The token's jti.
  id         TEXT PRIMARY KEY,
  -- Null for client_credentials.
  grant_id   TEXT REFERENCES grants (id) ON DELETE CASCADE,
  client_id  TEXT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_grant ON access_tokens (grant_id);
CREATE INDEX access_tokens_by_client ON access_tokens (client_id);
CREATE INDEX access_tokens_by_expiry ON access_tokens (expires_at);

CREATE TABLE authorization_codes (
  digest         TEXT PRIMARY KEY,
  client_id      TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
  user_id        TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  session_id     TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  redirect_uri   TEXT NOT NULL,
  scope          TEXT NOT NULL,
  nonce          TEXT,
  code_challenge TEXT NOT NULL,
  created_at     BIGINT NOT NULL,
  expires_at     BIGINT NOT NULL,
  used_at        BIGINT,
  -- What was issued for it; revoked when the code comes a second time.
  grant_id       TEXT
);
CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at);
