//! What a guest's statement may not do, whatever it says: the connection's authorizer, its limits and its clock.
//!
//! **Invariant:** a connection obeys the guard from before its first use; outside of [`enter`] it belongs to the host.

use crate::sql;
use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
};
use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

/// The host's tables begin with this; no guest sees or touches one.
pub const HOST_PREFIX: &str = "_exprsn_";

/// SQLite instructions between two looks at the clock: some ten microseconds.
const INSTRUCTIONS_PER_LOOK: i32 = 1_000;

/// What each connection allows. Most are below SQLite's defaults, which suit a trusted author.
const LIMITS: &[(Limit, i32)] = &[
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 250),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (Limit::SQLITE_LIMIT_COLUMN, 500),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 32),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Functions that reach out of the database or into the engine.
const FUNCTIONS_DENIED: &[&str] = &[
    "load_extension",
    "fts3_tokenizer",
    "sqlite_attach",
    "sqlite_detach",
];
/// Table-valued functions that show the engine's inside.
const TABLES_DENIED: &[&str] = &[
    "dbstat",
    "sqlite_dbpage",
    "sqlite_stmt",
    "bytecode",
    "tables_used",
];
/// Virtual tables that a service may create.
const MODULES: &[&str] = &["fts5", "fts5vocab", "rtree"];
/// Pragmas that `fts5` and `rtree` read in the service's name.
const PRAGMAS_OF_MODULES: &[&str] = &["data_version", "page_size"];

const NO_TEMP: &str = "TEMP is not available: connections are shared between requests";
const NEEDS_DDL: &str = "only migrations, and services granted `sql` with ddl = true, may change the schema or look into it";

impl From<sql::Rights> for Rights {
    fn from(rights: sql::Rights) -> Self {
        match rights {
            sql::Rights::Rows => Self::Rows,
            sql::Rights::Schema => Self::Schema,
        }
    }
}

/// Whose statements a connection is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Host,
    /// Reading and changing rows.
    Rows,
    /// Also creating, changing and dropping tables: migrations, and services granted `ddl`.
    Schema,
}

struct State {
    rights: Cell<Rights>,
    deadline: Cell<Option<Instant>>,
    /// What was denied last, in words for the guest.
    denied: RefCell<Option<String>>,
}

thread_local! {
    // A connection stays in its thread, and a thread has one connection.
    static STATE: State = const {
        State { rights: Cell::new(Rights::Host), deadline: Cell::new(None), denied: RefCell::new(None) }
    };
}

/// While it lives, this thread's connection runs a guest's statements.
#[derive(Debug)]
pub struct Entered(());

/// Gives this thread's connection to a guest until the value drops. What runs past `deadline` is interrupted.
pub fn enter(rights: Rights, deadline: Option<Instant>) -> Entered {
    STATE.with(|state| {
        state.rights.set(rights);
        state.deadline.set(deadline);
        state.denied.replace(None);
    });
    Entered(())
}

impl Entered {
    /// Moves the deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        STATE.with(|state| state.deadline.set(deadline));
    }

    /// What was denied since [`enter`], in words for the guest.
    pub fn denied(&self) -> Option<String> {
        STATE.with(|state| state.denied.take())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        STATE.with(|state| {
            state.rights.set(Rights::Host);
            state.deadline.set(None);
        });
    }
}

/// Installs authorizer, limits and clock.
pub fn install(connection: &Connection, value_bytes_max: usize) -> rusqlite::Result<()> {
    for (limit, value) in LIMITS {
        connection.set_limit(*limit, *value)?;
    }
    connection.set_limit(
        Limit::SQLITE_LIMIT_LENGTH,
        i32::try_from(value_bytes_max).unwrap_or(i32::MAX),
    )?;
    connection.authorizer(Some(|context: AuthContext<'_>| {
        STATE.with(|state| match refusal(state.rights.get(), &context) {
            None => Authorization::Allow,
            Some(reason) => {
                state.denied.replace(Some(reason));
                Authorization::Deny
            }
        })
    }))?;
    connection.progress_handler(
        INSTRUCTIONS_PER_LOOK,
        Some(|| {
            STATE.with(|state| {
                state
                    .deadline
                    .get()
                    .is_some_and(|deadline| Instant::now() >= deadline)
            })
        }),
    )
}

/// Why `rights` do not cover what is asked for; none when they do.
fn refusal(rights: Rights, context: &AuthContext<'_>) -> Option<String> {
    if rights == Rights::Host {
        return None;
    }
    if context
        .database_name
        .is_some_and(|name| !name.eq_ignore_ascii_case("main"))
    {
        return Some(NO_TEMP.to_owned());
    }
    let schema = rights == Rights::Schema;
    match context.action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Read { table_name, .. } => readable(table_name, schema),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => writable(table_name, schema),
        AuthAction::Function { function_name } if listed(FUNCTIONS_DENIED, function_name) => {
            Some(format!("the function {function_name} is not available to services"))
        }
        AuthAction::Function { .. } => None,
        AuthAction::Pragma { pragma_name, pragma_value: None } if listed(PRAGMAS_OF_MODULES, pragma_name) => None,
        AuthAction::Pragma { .. } => Some("PRAGMA is not available to services".to_owned()),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("a service reaches its own database only: ATTACH, DETACH and VACUUM are not available".to_owned())
        }
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some(
            "transactions are begun and ended by `batch` and `transaction`, not by BEGIN, COMMIT or SAVEPOINT"
                .to_owned(),
        ),
        _ => definition(&context.action, schema),
    }
}

/// Statements that define tables, indexes, views and triggers.
fn definition(action: &AuthAction<'_>, schema: bool) -> Option<String> {
    let named = match *action {
        AuthAction::CreateTable { table_name } | AuthAction::DropTable { table_name } => {
            [table_name, ""]
        }
        AuthAction::AlterTable { table_name, .. } => [table_name, ""],
        // Asked for when an index is created, too.
        AuthAction::Reindex { index_name } => [index_name, ""],
        AuthAction::CreateIndex {
            index_name,
            table_name,
        }
        | AuthAction::DropIndex {
            index_name,
            table_name,
        } => [index_name, table_name],
        AuthAction::CreateTrigger {
            trigger_name,
            table_name,
        }
        | AuthAction::DropTrigger {
            trigger_name,
            table_name,
        } => [trigger_name, table_name],
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => {
            [view_name, ""]
        }
        AuthAction::CreateVtable {
            table_name,
            module_name,
        }
        | AuthAction::DropVtable {
            table_name,
            module_name,
        } if listed(MODULES, module_name) => [table_name, ""],
        AuthAction::CreateVtable { module_name, .. } => {
            return Some(format!(
                "the module {module_name} is not available; there are: {}",
                MODULES.join(", ")
            ));
        }
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => {
            return Some(NO_TEMP.to_owned());
        }
        _ => return Some("this statement is not available to services".to_owned()),
    };
    if !schema {
        return Some(NEEDS_DDL.to_owned());
    }
    named
        .into_iter()
        .find(|name| is_host(name))
        .map(|name| format!("{name} belongs to the host"))
}

fn readable(table: &str, schema: bool) -> Option<String> {
    // The query planner of `rtree` looks at the statistics by itself.
    if table.eq_ignore_ascii_case("sqlite_stat1") {
        None
    } else {
        writable(table, schema)
    }
}

fn writable(table: &str, schema: bool) -> Option<String> {
    if is_host(table) || listed(TABLES_DENIED, table) {
        return Some(format!("no such table: {table}"));
    }
    // SQLite writes down a definition in its own tables; it refuses by itself what a guest says about them directly.
    (begins(table, "sqlite_") && !schema).then(|| NEEDS_DDL.to_owned())
}

fn is_host(name: &str) -> bool {
    begins(name, HOST_PREFIX)
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn listed(list: &[&str], name: &str) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}
