-- What was accepted, and how often its job was done and its event heard.
CREATE TABLE work (
    id TEXT PRIMARY KEY,
    done BIGINT NOT NULL DEFAULT 0,
    heard BIGINT NOT NULL DEFAULT 0
);
