//! What a statement is by its first words. The server's own rules for the role come after; these keep out what no rule of
//! PostgreSQL forbids a role: its session's settings, its own password, notifications, explicit locks.

use crate::sql::{Error, Result, Rights};

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers rows and changes none.
    Reads,
    /// Changes rows.
    Writes,
    /// Changes rows or not: it begins with WITH.
    MayWrite,
    /// Changes the schema.
    Defines,
}

const NEEDS_DDL: &str =
    "only migrations, and services granted `sql` with ddl = true, may change the schema";
const NOT_AVAILABLE: &str = "this statement is not available to services";
const TRANSACTIONS: &str = "transactions are begun and ended by `batch` and `transaction`, not by BEGIN, COMMIT or SAVEPOINT";

/// Words that begin and end transactions.
const OF_TRANSACTIONS: &[&str] = &[
    "abort",
    "begin",
    "commit",
    "end",
    "release",
    "rollback",
    "savepoint",
    "start",
];
/// Words that begin what only the host and the server's operator do.
const DENIED: &[&str] = &[
    "analyze",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "copy",
    "deallocate",
    "declare",
    "discard",
    "do",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "listen",
    "load",
    "lock",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "reset",
    "revoke",
    "security",
    "set",
    "show",
    "unlisten",
    "vacuum",
];
/// What a service with `ddl` may create, alter and drop. Functions and triggers come with migrations.
const DEFINABLE: &[&str] = &[
    "domain",
    "index",
    "materialized",
    "or",
    "sequence",
    "table",
    "type",
    "unique",
    "view",
];
/// What `CREATE OR REPLACE` may replace.
const REPLACEABLE: &[&str] = &["view"];

impl Kind {
    /// Whether the rows that it answers for are changed ones.
    pub fn counts(self) -> bool {
        matches!(self, Self::Writes | Self::MayWrite)
    }
}

/// Says what a statement is, or why `rights` do not cover it.
pub fn judge(text: &str, rights: Rights) -> Result<Kind> {
    let mut words = Words(text);
    let first = words.next().unwrap_or_default();
    let is = |list: &[&str]| list.contains(&first.as_str());
    match first.as_str() {
        "select" | "table" | "values" => Ok(Kind::Reads),
        "delete" | "insert" | "merge" | "update" => Ok(Kind::Writes),
        "with" if mentions_writing(words.0) => Ok(Kind::MayWrite),
        "with" => Ok(Kind::Reads),
        "alter" | "create" | "drop" => define(words, rights),
        "comment" | "truncate" if rights == Rights::Schema => Ok(Kind::Defines),
        "comment" | "truncate" => Err(Error::Denied(NEEDS_DDL.to_owned())),
        "" => Err(Error::invalid("the statement is empty")),
        _ if is(OF_TRANSACTIONS) => Err(Error::Denied(TRANSACTIONS.to_owned())),
        _ if is(DENIED) => Err(Error::Denied(NOT_AVAILABLE.to_owned())),
        _ => Err(Error::invalid(format!(
            "syntax error at or near \"{first}\""
        ))),
    }
}

fn define(mut words: Words<'_>, rights: Rights) -> Result<Kind> {
    let what = words.next().unwrap_or_default();
    let replaces = what == "or" && words.next().as_deref() == Some("replace");
    let definable = match replaces {
        true => words
            .next()
            .is_some_and(|what| REPLACEABLE.contains(&what.as_str())),
        false => what != "or" && DEFINABLE.contains(&what.as_str()),
    };
    match (rights, definable) {
        (Rights::Rows, _) => Err(Error::Denied(NEEDS_DDL.to_owned())),
        (Rights::Schema, true) => Ok(Kind::Defines),
        (Rights::Schema, false) => Err(Error::Denied(NOT_AVAILABLE.to_owned())),
    }
}

/// Whether a word anywhere changes rows; one in a string or a name only costs a transaction.
fn mentions_writing(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let writes = |word: &str| {
        ["delete", "insert", "merge", "update"]
            .iter()
            .any(|verb| word.eq_ignore_ascii_case(verb))
    };
    words.into_iter().any(writes)
}

/// The leading words of a statement in lower case; ends at whatever is no word, space, comment or opening parenthesis.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0 = skip(self.0);
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let end = self.0.find(word).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then(|| word.to_ascii_lowercase())
    }
}

/// What follows spaces, opening parentheses and comments, which nest in PostgreSQL.
fn skip(mut text: &str) -> &str {
    loop {
        let trimmed = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        text = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.find(['\n', '\r']).map_or("", |end| &comment[end..])
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            after_comment(comment)
        } else {
            return trimmed;
        };
    }
}

fn after_comment(mut text: &str) -> &str {
    let mut depth = 1;
    while depth > 0 {
        match (text.find("*/"), text.find("/*")) {
            (Some(end), Some(begin)) if begin < end => {
                (depth, text) = (depth + 1, &text[begin + 2..])
            }
            (Some(end), _) => (depth, text) = (depth - 1, &text[end + 2..]),
            (None, _) => return "",
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_by_their_first_words() {
        for (text, kind) in [
            ("SELECT 1", Kind::Reads),
            (
                " -- set\n/* a /* nested */ one */ ((select 1))",
                Kind::Reads,
            ),
            ("with x as (select 1) select * from x", Kind::Reads),
            (
                "WITH x AS (DELETE FROM t RETURNING k) SELECT * FROM x",
                Kind::MayWrite,
            ),
            ("Insert Into t VALUES (1)", Kind::Writes),
        ] {
            assert_eq!(judge(text, Rights::Rows), Ok(kind), "{text}");
        }
        for text in [
            "CREATE TABLE a (b int)",
            "create or replace view v as select 1",
            "DROP INDEX i",
        ] {
            assert_eq!(judge(text, Rights::Schema), Ok(Kind::Defines), "{text}");
            assert!(
                matches!(judge(text, Rights::Rows), Err(Error::Denied(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_no_role_is_forbidden_is_forbidden_here() {
        for text in [
            "SET ROLE postgres",
            "RESET ALL",
            "/**/set statement_timeout = 0",
            "LISTEN x",
            "NOTIFY x",
            "LOCK t",
            "COPY t TO PROGRAM 'id'",
            "DO $$ begin end $$",
            "CALL f()",
            "COMMIT",
            "begin",
            "PREPARE a AS SELECT 1",
            "ALTER ROLE me PASSWORD 'x'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'",
            "CREATE EXTENSION dblink",
            "CREATE TEMP TABLE x (a int)",
            "ALTER DATABASE d SET search_path = x",
            "DROP SCHEMA exprsn_host",
            "SHOW all",
            "EXPLAIN ANALYZE SELECT 1",
            "VACUUM",
            "GRANT ALL ON t TO PUBLIC",
            "ALTER SYSTEM SET a = 1",
        ] {
            assert!(
                matches!(judge(text, Rights::Schema), Err(Error::Denied(_))),
                "{text}"
            );
        }
        for text in [
            "",
            " ",
            "-- nothing",
            "/* open",
            "SELEKT 1",
            "\u{a0}select 1",
        ] {
            assert!(
                matches!(judge(text, Rights::Rows), Err(Error::Invalid(_))),
                "{text}"
            );
        }
    }
}
