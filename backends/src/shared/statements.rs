//! What is said to the server. Each is one statement, so that it happens whole or not at all.

use super::{FACTS_MAX, PAGE_BYTES_MAX, TIDIED_MAX};

/// What the connection for heartbeats says.
pub fn of_beats() -> Vec<(Say, String)> {
    vec![
        (Say::Renew, RENEW.to_owned()),
        (Say::Hear, hear()),
        (Say::Hosts, HOSTS.to_owned()),
    ]
}

/// What the other connection says.
pub fn of_facts() -> Vec<(Say, String)> {
    let tidy = |text: &str| text.replace("$max", &TIDIED_MAX.to_string());
    vec![
        (Say::Put, PUT.to_owned()),
        (Say::Create, CREATE.to_owned()),
        (Say::Get, GET.to_owned()),
        (Say::Hear, hear()),
        (Say::Leave, "DELETE FROM hosts WHERE host = $1".to_owned()),
        (Say::CountUse, COUNT_USE.to_owned()),
        (Say::HasComponent, HAS_COMPONENT.to_owned()),
        (Say::Invite, INVITE.to_owned()),
        (Say::InvitationHash, INVITATION_HASH.to_owned()),
        (Say::Accept, ACCEPT.to_owned()),
        (Say::TidyFacts, tidy(TIDY_FACTS)),
        (Say::TidyUses, tidy(TIDY_USES)),
        (Say::TidyOthers, TIDY_OTHERS.to_owned()),
    ]
}

/// The name of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Say {
    Renew,
    Hear,
    Hosts,
    Put,
    Create,
    Get,
    Leave,
    CountUse,
    HasComponent,
    Invite,
    InvitationHash,
    Accept,
    TidyFacts,
    TidyUses,
    TidyOthers,
}

/// The page of facts after `$1`, with the last revision that this snapshot knows and the newest fact's. The row of
/// `revisions` comes alone where no fact is new.
fn hear() -> String {
    format!(
        "WITH page AS (
           SELECT kind, key, value, revision, expires_at FROM (
             SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY revision ROWS UNBOUNDED PRECEDING)
                       - coalesce(octet_length(value), 0) AS bytes_before
             FROM (SELECT * FROM facts WHERE revision > $1 ORDER BY revision LIMIT {FACTS_MAX}) AS newer
           ) AS measured WHERE bytes_before < {PAGE_BYTES_MAX}
         )
         SELECT last, coalesce((SELECT max(revision) FROM facts), 0) AS newest, page.*
         FROM revisions LEFT JOIN page ON TRUE ORDER BY page.revision"
    )
}

const RENEW: &str = "INSERT INTO hosts (host, address, state, expires_at)
    VALUES ($1, $2, $3, clock_timestamp() + $4::float8 * INTERVAL '1 millisecond')
    ON CONFLICT (host) DO UPDATE
    SET address = excluded.address, state = excluded.state, expires_at = excluded.expires_at";

const HOSTS: &str =
    "SELECT host, address, state FROM hosts WHERE expires_at > clock_timestamp() ORDER BY host";

// The row of `revisions` stays locked until the transaction ends: revisions become visible in their order, so that whoever
// has seen one has seen all before it.
const PUT: &str = "WITH revision AS (
      UPDATE revisions SET last = last + $1::bigint RETURNING last
    ), written AS (
      INSERT INTO facts (kind, key, value, expires_at, revision, changed_at)
      SELECT kind, key, value, expires_at, last - $1::bigint + position, clock_timestamp()
      FROM revision, unnest($2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bigint[])
        AS change (kind, key, value, expires_at, position)
      ON CONFLICT (kind, key) DO UPDATE
      SET value = excluded.value, expires_at = excluded.expires_at, revision = excluded.revision,
          changed_at = excluded.changed_at
    ) SELECT last FROM revision";

// Who waited for the lock finds what the one before wrote, although its snapshot is older: then no row is returned.
const CREATE: &str = "WITH revision AS (
      UPDATE revisions SET last = last + 1 RETURNING last
    )
    INSERT INTO facts (kind, key, value, revision, changed_at)
    SELECT $1::text, $2::text, $3::bytea, last, clock_timestamp() FROM revision
    ON CONFLICT (kind, key) DO UPDATE
    SET value = excluded.value, expires_at = NULL, revision = excluded.revision, changed_at = excluded.changed_at
    WHERE facts.value IS NULL OR facts.expires_at <= extract(epoch FROM clock_timestamp())
    RETURNING value";

const GET: &str = "SELECT value FROM facts WHERE kind = $1 AND key = $2 AND value IS NOT NULL
    AND (expires_at IS NULL OR expires_at > extract(epoch FROM clock_timestamp()))";

const COUNT_USE: &str = "INSERT INTO token_uses AS token (id, used, expires_at)
    SELECT $1::text, 1, $3::bigint WHERE $2::bigint > 0
    ON CONFLICT (id) DO UPDATE SET used = token.used + 1 WHERE token.used < $2::bigint
    RETURNING $2::bigint - used";

const HAS_COMPONENT: &str = "SELECT FROM components WHERE digest = $1";

const INVITE: &str = "INSERT INTO invitations (id, secret_hash, services, uses_left, expires_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING RETURNING id";

const INVITATION_HASH: &str =
    "SELECT secret_hash FROM invitations WHERE id = $1 AND uses_left > 0 AND expires_at > $2";

// `$3` is the hash that was read before: an invitation of the same name that came since is another.
const ACCEPT: &str = "UPDATE invitations SET uses_left = uses_left - 1
    WHERE id = $1 AND uses_left > 0 AND expires_at > $2 AND secret_hash = $3
    RETURNING services, uses_left, expires_at";

// What somebody is just writing is not old: it is skipped.
const TIDY_FACTS: &str = "WITH old AS (
      SELECT kind, key FROM facts
      WHERE expires_at <= $1 OR (value IS NULL AND changed_at <= to_timestamp($2::float8))
      LIMIT $max FOR UPDATE SKIP LOCKED
    )
    DELETE FROM facts USING old WHERE facts.kind = old.kind AND facts.key = old.key RETURNING 1";

const TIDY_USES: &str = "WITH old AS (
      SELECT id FROM token_uses WHERE expires_at <= $1 LIMIT $max FOR UPDATE SKIP LOCKED
    )
    DELETE FROM token_uses USING old WHERE token_uses.id = old.id RETURNING 1";

const TIDY_OTHERS: &str =
    "WITH left_hosts AS (DELETE FROM hosts WHERE expires_at <= clock_timestamp())
    DELETE FROM invitations WHERE expires_at <= $1";
