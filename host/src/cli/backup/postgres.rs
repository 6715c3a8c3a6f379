//! The platform's databases on a PostgreSQL server, by PostgreSQL's own programs.
//!
//! **Invariant:** the password reaches them through their environment, never on a command line.

use crate::{
    capability::sql::PostgresServer,
    cli::output::{CliError, Result},
    config::or_environment,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names of the platform's databases and roles: `exprsn_timeline`, and `exprsn$notes` for a stranger's `notes`.
const OURS: &str = "~ '^exprsn[_$]'";
/// What distributions keep the certificates of public authorities in.
const PUBLIC_AUTHORITIES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// Debian keeps PostgreSQL's programs apart by version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A server, as its administrator reaches it. Not printable: it holds a password.
pub struct Server {
    environment: Vec<(&'static str, String)>,
}

/// The name of a database's archive in a backup.
pub fn file_name(database: &str) -> String {
    format!("{database}.dump")
}

impl Server {
    /// The server of `[backends.postgres]`; none if none is named.
    pub fn of(config: &PostgresServer) -> Result<Option<Self>> {
        if config.url.is_empty() {
            return Ok(None);
        }
        let url = or_environment("backends.postgres", "url", &config.url)?;
        let environment = environment(&url, &config.ca_file).ok_or_else(|| {
            CliError::failed(
                "[backends.postgres] url is no address that PostgreSQL's programs can be given",
            )
            .remedy("write postgres://user:password@host:5432/postgres?sslmode=require")
        })?;
        Ok(Some(Self { environment }))
    }

    /// The platform's databases.
    pub fn databases(&self) -> Result<Vec<String>> {
        self.ask(&format!(
            "SELECT datname FROM pg_database WHERE datname {OURS} ORDER BY datname"
        ))
    }

    /// The platform's roles.
    pub fn roles(&self) -> Result<Vec<String>> {
        self.ask(&format!(
            "SELECT rolname FROM pg_roles WHERE rolname {OURS} ORDER BY rolname"
        ))
    }

    /// Writes a database's archive.
    pub fn dump(&self, database: &str, to: &Path) -> Result {
        let mut command = self.command("pg_dump")?;
        command
            .args([
                "--format=custom",
                "--no-password",
                "--lock-wait-timeout=60s",
            ])
            .arg("--file")
            .arg(to)
            .env("PGDATABASE", database);
        run(&mut command).map(drop)
    }

    /// Makes a role that is not there. It may not log in until the platform starts and says so.
    pub fn create_role(&self, role: &str) -> Result {
        let role = quoted(role);
        self.ask(&format!("CREATE ROLE {role} NOLOGIN NOINHERIT"))?;
        let superuser = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper";
        if self.ask(superuser)?.is_empty() {
            // To give it what it owns, one must be a member.
            self.ask(&format!("GRANT {role} TO CURRENT_USER"))?;
        }
        Ok(())
    }

    /// Makes an empty database, as the platform does.
    pub fn create_database(&self, database: &str) -> Result {
        let database = quoted(database);
        self.ask(&format!(
            "CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))?;
        self.ask(&format!(
            "REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"
        ))
        .map(drop)
    }

    /// Fills an empty database from its archive, in one transaction.
    pub fn restore(&self, database: &str, from: &Path) -> Result {
        let mut command = self.command("pg_restore")?;
        command
            .args(["--exit-on-error", "--single-transaction", "--no-password"])
            .arg(format!("--dbname={database}"))
            .arg(from);
        run(&mut command).map(drop)
    }

    /// What a statement answers, one text a row.
    fn ask(&self, statement: &str) -> Result<Vec<String>> {
        let mut command = self.command("psql")?;
        command
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--no-password", "--set=ON_ERROR_STOP=1", "--command"])
            .arg(statement);
        let answered = run(&mut command)?;
        Ok(answered.lines().map(str::to_owned).collect())
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(find(program)?);
        for (name, _) in std::env::vars_os() {
            // What is set for other servers must not count here.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        Ok(command)
    }
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| CliError::failed(format!("cannot start `{program}`: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(
        CliError::failed(format!("`{program}` failed: {}", said.trim())).remedy(
            "the administrator of [backends.postgres] url must reach the server, and the programs must not be older than it",
        ),
    )
}

/// A program on PATH, or the newest that Debian has.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(program));
    let mut versions: Vec<PathBuf> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path())
        .collect();
    versions.sort_by_key(|path| {
        let version = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let of_versions = versions
        .into_iter()
        .map(|path| path.join("bin").join(program));
    // The newest first: an older one refuses a newer server, and Debian's on PATH chooses by clusters of this machine.
    let mut candidates = of_versions.chain(on_path);
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        CliError::failed(format!("`{program}` is not installed")).remedy(
            "install PostgreSQL's programs of the server's version or later (Debian: postgresql-client)",
        )
    })
}

/// What `postgres://user:password@host:port/database?sslmode=…` is in libpq's environment.
fn environment(url: &str, ca_file: &str) -> Option<Vec<(&'static str, String)>> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))?;
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (hosts, ports): (Vec<&str>, Vec<&str>) = hosts.split(',').map(host_and_port).unzip();
    let mut found = vec![
        ("PGHOST", decoded(&hosts.join(","))?),
        ("PGPORT", ports.join(",")),
        ("PGUSER", decoded(user)?),
        ("PGPASSWORD", decoded(password)?),
        ("PGDATABASE", decoded(database)?),
    ];
    let mut sslmode = "prefer".to_owned();
    for (name, value) in parameters
        .split('&')
        .filter_map(|pair| pair.split_once('='))
    {
        let value = decoded(value)?;
        match name {
            "sslmode" => sslmode = value,
            "host" => found[0].1 = value,
            "connect_timeout" => found.push(("PGCONNECT_TIMEOUT", value)),
            "target_session_attrs" => found.push(("PGTARGETSESSIONATTRS", value)),
            _ => {}
        }
    }
    // The host always looks at the server's certificate; libpq does so only when it is told to.
    if sslmode == "require" {
        let public = PUBLIC_AUTHORITIES
            .into_iter()
            .find(|path| Path::new(path).is_file())
            .unwrap_or_default();
        let trusted = if ca_file.is_empty() { public } else { ca_file };
        "verify-full".clone_into(&mut sslmode);
        found.push(("PGSSLROOTCERT", trusted.to_owned()));
    }
    found.push(("PGSSLMODE", sslmode));
    found.retain(|(_, value)| !value.is_empty());
    Some(found)
}

fn host_and_port(text: &str) -> (&str, &str) {
    match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':').unwrap_or("5432")),
        None => text.split_once(':').unwrap_or((text, "5432")),
    }
}

/// Text with its percent signs taken for what they mean. None where that is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// An identifier, quoted.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, name: &str) -> Option<String> {
        let found = environment(url, "/ca.pem").expect("an address");
        found
            .into_iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn addresses_become_an_environment() {
        let url = "postgres://ad%40min:pass%20w:ord@db.example:6432/postgres?sslmode=require&connect_timeout=3";
        for (name, value) in [
            ("PGHOST", "db.example"),
            ("PGPORT", "6432"),
            ("PGUSER", "ad@min"),
            ("PGPASSWORD", "pass w:ord"),
            ("PGDATABASE", "postgres"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca.pem"),
            ("PGCONNECT_TIMEOUT", "3"),
        ] {
            assert_eq!(of(url, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(
            of("postgresql://a@[::1]/x", "PGHOST").as_deref(),
            Some("::1")
        );
        assert_eq!(of("postgresql://a@[::1]/x", "PGPASSWORD"), None);
        assert_eq!(of("postgres://a@h,i:1/x", "PGHOST").as_deref(), Some("h,i"));
        assert_eq!(
            of("postgres://a@h,i:1/x", "PGPORT").as_deref(),
            Some("5432,1")
        );
        assert!(environment("host=localhost", "").is_none());
        assert!(environment("postgres://a:%zz@h/x", "").is_none());
    }

    #[test]
    fn no_server_is_no_server() {
        assert!(Server::of(&PostgresServer::default()).unwrap().is_none());
    }
}
