-- Services that registered themselves. Instants are milliseconds since the Unix epoch.
CREATE TABLE registrations (
    name TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    health_check_path TEXT NOT NULL,
    dependencies TEXT NOT NULL, -- a JSON array of names
    metadata TEXT NOT NULL, -- a JSON object
    owner TEXT NOT NULL, -- the subject that registered it, the only one to renew and remove it
    lease_seconds INTEGER NOT NULL CHECK (lease_seconds > 0),
    registered_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    expiry_told INTEGER NOT NULL DEFAULT 0 CHECK (expiry_told IN (0, 1))
);
CREATE INDEX registrations_expires_at ON registrations (expires_at);

-- The state of each service of the platform when it was last looked at, so that a change is told once.
CREATE TABLE observed (
    name TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    digest TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- The last changes, for listeners who come back. Ids are UUIDs of version 7: their order is that of time.
CREATE TABLE changes (
    id TEXT PRIMARY KEY,
    data TEXT NOT NULL -- JSON, as it is sent
);
