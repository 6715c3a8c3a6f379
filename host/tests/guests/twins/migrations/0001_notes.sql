-- What the guest was told to remember, and what its worker and its subscriber were given.
CREATE TABLE notes (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL
);
