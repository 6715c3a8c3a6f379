-- Posts, what people do to them, who follows whom, and the home timelines.
-- Ids of posts and comments are UUID v7: their text order is their order in time, so an id is also a cursor.
-- Instants are milliseconds since the Unix epoch.

-- Counters of a user, kept in the transactions that change what they count. The row is also the lock under which
-- two users' relation (follow, block) changes.
CREATE TABLE accounts (
  user_id TEXT PRIMARY KEY,
  follower_count BIGINT NOT NULL DEFAULT 0 CHECK (follower_count >= 0),
  following_count BIGINT NOT NULL DEFAULT 0 CHECK (following_count >= 0),
  post_count BIGINT NOT NULL DEFAULT 0 CHECK (post_count >= 0)
);

CREATE TABLE posts (
  id TEXT PRIMARY KEY,
  author_id TEXT NOT NULL,
  content TEXT NOT NULL CHECK (length(content) BETWEEN 1 AND 5000),
  -- 'push': copied into the followers' home timelines. 'pull': merged in when they read.
  reach TEXT NOT NULL CHECK (reach IN ('push', 'pull')),
  revision BIGINT NOT NULL DEFAULT 1 CHECK (revision >= 1),
  like_count BIGINT NOT NULL DEFAULT 0 CHECK (like_count >= 0),
  comment_count BIGINT NOT NULL DEFAULT 0 CHECK (comment_count >= 0),
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE INDEX posts_by_author ON posts (author_id, id);
CREATE INDEX posts_pulled ON posts (author_id, id) WHERE reach = 'pull';

-- What a post said before each edit; the present words are in posts.
CREATE TABLE post_revisions (
  post_id TEXT NOT NULL REFERENCES posts (id),
  revision BIGINT NOT NULL,
  content TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (post_id, revision)
);

CREATE TABLE likes (
  post_id TEXT NOT NULL REFERENCES posts (id),
  user_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (post_id, user_id)
);
CREATE INDEX likes_by_user ON likes (user_id, post_id);

CREATE TABLE comments (
  id TEXT PRIMARY KEY,
  post_id TEXT NOT NULL REFERENCES posts (id),
  author_id TEXT NOT NULL,
  content TEXT NOT NULL CHECK (length(content) BETWEEN 1 AND 2000),
  created_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE INDEX comments_by_post ON comments (post_id, id) WHERE deleted_at IS NULL;
CREATE INDEX comments_by_author ON comments (author_id, post_id);

CREATE TABLE follows (
  followee_id TEXT NOT NULL,
  follower_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (followee_id, follower_id),
  CHECK (followee_id <> follower_id)
);
CREATE INDEX follows_newest_followers ON follows (followee_id, created_at, follower_id);
CREATE INDEX follows_newest_following ON follows (follower_id, created_at, followee_id);

CREATE TABLE blocks (
  blocker_id TEXT NOT NULL,
  blocked_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (blocker_id, blocked_id),
  CHECK (blocker_id <> blocked_id)
);
CREATE INDEX blocks_by_blocked ON blocks (blocked_id);

-- Candidates of a home timeline. Reading checks again that the post is there and its author still followed.
CREATE TABLE home_entries (
  user_id TEXT NOT NULL,
  post_id TEXT NOT NULL,
  PRIMARY KEY (user_id, post_id)
);
