CREATE TABLE checks (
    service TEXT NOT NULL,
    checked_at INTEGER NOT NULL,
    healthy INTEGER NOT NULL,
    PRIMARY KEY (service, checked_at)
);
