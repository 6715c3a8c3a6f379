-- Tokens issued here; the token's text is not kept. Instants are seconds since the Unix epoch, as in tokens.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, -- jti
    subject TEXT NOT NULL,
    audience TEXT NOT NULL, -- a JSON array
    resources TEXT NOT NULL, -- a JSON array
    permissions TEXT NOT NULL, -- a JSON array
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL CHECK (expires_at > issued_at),
    max_uses BIGINT CHECK (max_uses > 0),
    parent TEXT, -- the token it was narrowed from, with which it is revoked
    issued_by TEXT NOT NULL,
    revoked_at BIGINT,
    revoked_by TEXT
);
CREATE INDEX tokens_parent ON tokens (parent) WHERE parent IS NOT NULL;
CREATE INDEX tokens_expires_at ON tokens (expires_at);

-- Certificates: root, intermediate, and each that the host has issued to a component.
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY, -- lower-case hex
    kind TEXT NOT NULL CHECK (kind IN ('root', 'intermediate', 'component')),
    subject TEXT NOT NULL,
    service TEXT,
    version TEXT,
    digest TEXT,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    pem TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_by TEXT,
    reason TEXT
);
CREATE INDEX certificates_recorded ON certificates (recorded_at, serial);

-- The present revocation list.
CREATE TABLE revocation_list (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    number BIGINT NOT NULL,
    pem TEXT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL
);
INSERT INTO revocation_list (only_row, number, pem, this_update, next_update) VALUES (1, 0, '', 0, 0);

-- The audit log. Each entry's hash covers the entry and the hash before it.
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL, -- milliseconds since the Unix epoch
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL, -- JSON, exactly as it was hashed
    previous_hash TEXT NOT NULL CHECK (length(previous_hash) = 64),
    hash TEXT NOT NULL CHECK (length(hash) = 64)
);

-- Where the log ends, under a seal whose key the host keeps: whoever can write the tables cannot shorten or rewrite the log.
CREATE TABLE audit_head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL
);
INSERT INTO audit_head (only_row, seq, hash, seal)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000', '');
