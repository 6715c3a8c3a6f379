//! Creating what a service has on the server: its database, its roles, and what each of them may do.
//!
//! Everything here may be done again, and by several hosts at once: a lock lets them do it one after the other.

use super::{
    pool::{Connection, Connector},
    roles::{Roles, Secrets, literal, quoted},
};
use crate::sql::{Failure, error::BoxError};
use tokio_postgres::Client;

/// Held by whoever creates databases and roles.
pub const LOCK: &str = "SELECT pg_advisory_lock(7012024)";
const HARDEN: &str = include_str!("harden.sql");
const HOST: &str = include_str!("host.sql");

type Done = Result<(), BoxError>;

/// Closes the databases that every role may otherwise enter, where the administrator may do so.
pub async fn close_common_databases(admin: &Client) -> Done {
    admin.batch_execute(LOCK).await?;
    let open = "SELECT d.datname FROM pg_database d
        WHERE (d.datname IN ('postgres', 'template1') OR d.datname = current_database())
          AND has_database_privilege('public', d.oid, 'CONNECT')
          AND (pg_has_role(d.datdba, 'USAGE') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))";
    for row in admin.query(open, &[]).await? {
        let name = quoted(row.get(0));
        let close = format!(
            "GRANT CONNECT, TEMPORARY ON DATABASE {name} TO CURRENT_USER; REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC"
        );
        admin.batch_execute(&close).await?;
        tracing::info!(
            database = name,
            "only the administrator may connect to it now"
        );
    }
    Ok(admin
        .batch_execute("SELECT pg_advisory_unlock_all()")
        .await?)
}

/// Whether the database is there.
pub async fn exists(admin: &Client, database: &str) -> Result<bool, BoxError> {
    let found = admin
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&database])
        .await?;
    Ok(found.is_some())
}

/// Creates the service's database and roles, or brings them up to date.
pub async fn provision(admin: &Connector, roles: &Roles, secrets: &Secrets) -> Result<(), Failure> {
    let doing = |what: &str| format!("{what} `{}` on the PostgreSQL server", roles.database);
    let connected = admin.connect().await;
    let server = connected.map_err(Failure::doing(
        "connecting to the PostgreSQL server of [backends.postgres] url",
    ))?;
    // The session's end gives the lock back.
    server
        .client
        .batch_execute(LOCK)
        .await
        .map_err(Failure::doing(doing("locking")))?;
    let superuser = is_superuser(&server)
        .await
        .map_err(Failure::doing(doing("looking at")))?;
    create_roles(&server, roles, secrets, superuser)
        .await
        .map_err(Failure::doing(doing("creating the roles of")))?;
    create_database(&server, roles)
        .await
        .map_err(Failure::doing(doing("creating")))?;
    let mut inside = admin.clone();
    inside.config.dbname(&roles.database);
    let connected = inside.connect().await;
    let database = connected.map_err(Failure::doing(doing("connecting to")))?;
    share(&database, roles, superuser)
        .await
        .map_err(Failure::doing(doing("setting the rights in")))?;
    let host = connect_as(&inside, &roles.host, secrets).await?;
    create_host_tables(&host, roles, secrets)
        .await
        .map_err(Failure::doing(doing("creating the host's tables in")))?;
    let owner = connect_as(&inside, &roles.owner, secrets).await?;
    share_tables(&owner, roles)
        .await
        .map_err(Failure::doing(doing("sharing the tables of")))
}

/// A connection as one of the service's roles, without the limits of its guests.
pub async fn connect_as(
    inside: &Connector,
    role: &str,
    secrets: &Secrets,
) -> Result<Connection, Failure> {
    let connected = as_role(inside, role, secrets).connect().await;
    connected.map_err(Failure::doing(format!(
        "connecting to the PostgreSQL server as `{role}`"
    )))
}

/// How one of the service's roles connects.
pub fn as_role(inside: &Connector, role: &str, secrets: &Secrets) -> Connector {
    let mut connector = inside.clone();
    connector.config.user(role).password(secrets.password(role));
    connector
}

async fn is_superuser(server: &Connection) -> Result<bool, BoxError> {
    let row = server
        .client
        .query_one(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

async fn create_roles(
    server: &Connection,
    roles: &Roles,
    secrets: &Secrets,
    superuser: bool,
) -> Done {
    for role in roles.all() {
        let found = server
            .client
            .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role])
            .await?;
        let verb = if found.is_some() { "ALTER" } else { "CREATE" };
        let powerless = if superuser {
            " NOSUPERUSER NOREPLICATION NOBYPASSRLS"
        } else {
            ""
        };
        // What the server gets and may log is a verifier, not the password.
        let verifier =
            postgres_protocol::password::scram_sha_256(secrets.password(role).as_bytes());
        let role = quoted(role);
        let say = format!(
            "{verb} ROLE {role} WITH LOGIN NOCREATEDB NOCREATEROLE NOINHERIT{powerless} PASSWORD {}",
            literal(&verifier)
        );
        server.client.batch_execute(&say).await?;
        if !superuser {
            // To give it what it owns, one must be a member.
            server
                .client
                .batch_execute(&format!("GRANT {role} TO CURRENT_USER"))
                .await?;
        }
    }
    Ok(())
}

async fn create_database(server: &Connection, roles: &Roles) -> Done {
    create_absent(&server.client, &roles.database).await?;
    let name = quoted(&roles.database);
    let all = roles.all().map(quoted).join(", ");
    let open = format!("GRANT CONNECT ON DATABASE {name} TO {all}");
    Ok(server.client.batch_execute(&open).await?)
}

/// Creates a database where it is absent, and closes it to every role but its owner. Whoever calls holds [`LOCK`].
pub async fn create_absent(server: &Client, database: &str) -> Done {
    let name = quoted(database);
    if !exists(server, database).await? {
        // Text is compared and ordered by its bytes, as in SQLite.
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        server.batch_execute(&create).await?;
        tracing::info!(database, "created a database");
    }
    let close = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC");
    Ok(server.batch_execute(&close).await?)
}

/// What each role may do in the service's database.
async fn share(database: &Connection, roles: &Roles, superuser: bool) -> Done {
    let [rows, owner, host] = roles.all().map(quoted);
    if superuser {
        database.client.batch_execute(HARDEN).await?;
        let grant = format!(
            "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), pg_try_advisory_xact_lock(bigint),
               pg_advisory_xact_lock(bigint), pg_advisory_xact_lock_shared(bigint) TO {host};
             GRANT USAGE ON LANGUAGE plpgsql TO {owner}, {host}"
        );
        database.client.batch_execute(&grant).await?;
    } else {
        tracing::warn!(
            database = roles.database,
            "the administrator is no superuser: settings, advisory locks and the catalogue of the server are kept from \
             guests by the host alone"
        );
    }
    let share = format!(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;
         GRANT USAGE ON SCHEMA public TO {rows};
         GRANT USAGE, CREATE ON SCHEMA public TO {owner};
         CREATE SCHEMA IF NOT EXISTS exprsn_host AUTHORIZATION {host}"
    );
    Ok(database.client.batch_execute(&share).await?)
}

async fn create_host_tables(host: &Connection, roles: &Roles, secrets: &Secrets) -> Done {
    let [rows, owner, _] = roles.all().map(quoted);
    host.client
        .batch_execute("SET client_min_messages = warning")
        .await?;
    host.client.batch_execute(HOST).await?;
    let key = "INSERT INTO exprsn_host.keys (only_row, digest) VALUES (1, sha256(convert_to($1, 'UTF8')))
        ON CONFLICT (only_row) DO UPDATE SET digest = excluded.digest WHERE keys.digest <> excluded.digest";
    host.client
        .execute(key, &[&secrets.host_key(&roles.database)])
        .await?;
    let share = format!(
        "GRANT USAGE ON SCHEMA exprsn_host TO {rows}, {owner};
         GRANT EXECUTE ON FUNCTION exprsn_host.announce, exprsn_host.enter TO {rows}, {owner};
         GRANT EXECUTE ON FUNCTION exprsn_host.record TO {owner}"
    );
    Ok(host.client.batch_execute(&share).await?)
}

/// What the owner has and will have, the guests' role may use.
async fn share_tables(owner: &Connection, roles: &Roles) -> Done {
    let rows = quoted(&roles.rows);
    let share = format!(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {rows};
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {rows};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {rows};
         GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {rows}"
    );
    Ok(owner.client.batch_execute(&share).await?)
}
