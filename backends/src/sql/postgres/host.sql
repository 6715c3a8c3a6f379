-- What is the host's in a service's database: run by the role that owns it. Guests may call `announce`, which takes
-- nothing without the host's key.
CREATE TABLE IF NOT EXISTS exprsn_host.outbox (
  seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id         TEXT NOT NULL UNIQUE,
  kind       TEXT NOT NULL CHECK (kind IN ('job', 'event')),
  payload    TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS exprsn_host.migrations (
  name       TEXT PRIMARY KEY,
  checksum   TEXT NOT NULL,
  applied_at BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS exprsn_host.keys (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  -- SHA-256
  digest   BYTEA NOT NULL
);
CREATE OR REPLACE FUNCTION exprsn_host.check_key(key TEXT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM exprsn_host.keys WHERE digest = sha256(convert_to(key, 'UTF8'))) THEN
    RAISE insufficient_privilege USING MESSAGE = 'only the host announces and migrates';
  END IF;
END $$;
CREATE OR REPLACE FUNCTION exprsn_host.announce(key TEXT, id TEXT, kind TEXT, payload TEXT, created_at BIGINT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM exprsn_host.check_key(key);
  INSERT INTO exprsn_host.outbox (id, kind, payload, created_at) VALUES ($2, $3, $4, $5) ON CONFLICT DO NOTHING;
END $$;
CREATE OR REPLACE FUNCTION exprsn_host.record(key TEXT, name TEXT, checksum TEXT, applied_at BIGINT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM exprsn_host.check_key(key);
  INSERT INTO exprsn_host.migrations (name, checksum, applied_at) VALUES ($2, $3, $4);
END $$;
-- Lets transactions of guests come one after the other, where the host wants it: one alone, or several statements at a time.
CREATE OR REPLACE FUNCTION exprsn_host.enter(alone BOOLEAN) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
BEGIN
  IF alone THEN
    PERFORM pg_advisory_xact_lock(7012026);
  ELSE
    PERFORM pg_advisory_xact_lock_shared(7012026);
  END IF;
END $$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA exprsn_host FROM PUBLIC;
