CREATE TABLE entries (
    id TEXT PRIMARY KEY,
    author_id TEXT NOT NULL,
    author TEXT NOT NULL,
    text TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX entries_newest ON entries (created_at DESC, id DESC);
