CREATE TABLE loot (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
INSERT INTO loot (id, text) VALUES (1, 'its own');
