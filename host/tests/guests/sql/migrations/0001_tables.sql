CREATE TABLE things (
  id TEXT PRIMARY KEY,
  number BIGINT CHECK (number >= 0),
  parent TEXT REFERENCES things (id)
);
CREATE TABLE announced (id TEXT PRIMARY KEY);
CREATE TABLE received (
  kind TEXT NOT NULL CHECK (kind IN ('job', 'event')),
  id TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (kind, id)
);
