-- Publishers whose signature on a component is trusted. Instants are seconds since the Unix epoch.
CREATE TABLE publishers (
    public_key TEXT PRIMARY KEY CHECK (length(public_key) = 64), -- Ed25519, lower-case hex
    name TEXT NOT NULL UNIQUE,
    trusted_at BIGINT NOT NULL,
    trusted_by TEXT NOT NULL
);

-- Decisions to admit a component. The certificate may be that of an earlier decision which was the same.
CREATE TABLE decisions (
    id TEXT PRIMARY KEY,
    serial TEXT NOT NULL, -- of the certificate
    service TEXT NOT NULL,
    digest TEXT NOT NULL,
    signer TEXT, -- public key; none where unsigned
    trust TEXT NOT NULL CHECK (trust IN ('publisher', 'untrusted', 'unsigned')),
    asked TEXT NOT NULL, -- JSON: what the component asks for
    answers TEXT, -- JSON; none where platform.toml answered
    decided_at BIGINT NOT NULL,
    decided_by TEXT NOT NULL
);
CREATE INDEX decisions_service ON decisions (service, id);

-- Grants that services have and may not use; the host enforces those that are not restored.
CREATE TABLE withheld (
    id TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    scope TEXT NOT NULL, -- *, sql, queue:timeline-fanout, call:exprsn-herald, …
    reason TEXT,
    withheld_at BIGINT NOT NULL,
    withheld_by TEXT NOT NULL,
    restored_at BIGINT,
    restored_by TEXT
);
CREATE UNIQUE INDEX withheld_in_force ON withheld (service, scope) WHERE restored_at IS NULL;
