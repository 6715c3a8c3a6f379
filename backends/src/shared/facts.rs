//! Facts: changed, created once, read.

use super::{
    CHANGES_MAX, Change, Error, Fact, KEY_BYTES_MAX, Shared, VALUE_BYTES_MAX, line::Parameters,
    statements::Say,
};
use std::collections::{HashMap, hash_map::Entry};
use tokio_postgres::Row;

/// Times that a fact is looked for which others remove as fast as they create it.
const CREATE_ATTEMPTS_MAX: u32 = 8;

impl Shared {
    /// Applies changes in one transaction, at most [`CHANGES_MAX`]; each gets a revision of its own, greater than all that
    /// are visible. Of several changes of one fact the last holds. Returns the last revision.
    pub async fn put(&self, changes: Vec<Change>) -> Result<i64, Error> {
        if changes.len() > CHANGES_MAX {
            return Err(Error::too_large(
                "changes: a put",
                changes.len(),
                CHANGES_MAX,
            ));
        }
        for change in &changes {
            check(&change.kind, &change.key, change.value.as_deref())?;
        }
        let count = changes.len() as i64;
        let columns = Columns::of(&changes);
        let parameters: Parameters = &[
            &count,
            &columns.kinds,
            &columns.keys,
            &columns.values,
            &columns.expiries,
            &columns.positions,
        ];
        let facts = &self.0.facts;
        let put = facts.ask(facts.deadline(), Say::Put, parameters).await?;
        let row = put.first();
        row.map(|row| row.get(0))
            .ok_or_else(|| Error::Fault("the table `revisions` is empty".to_owned()))
    }

    /// The value there, or `value`, which becomes it if there is none: the first writer wins. What has expired by the
    /// server's clock is not there.
    pub async fn create(&self, kind: &str, key: &str, value: Vec<u8>) -> Result<Vec<u8>, Error> {
        check(kind, key, Some(&value))?;
        let facts = &self.0.facts;
        let deadline = facts.deadline();
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let found = facts.ask_again(deadline, Say::Get, &[&kind, &key]).await?;
            if let Some(row) = found.first() {
                return Ok(row.get(0));
            }
            let created = facts
                .ask(deadline, Say::Create, &[&kind, &key, &value])
                .await?;
            if let Some(row) = created.first() {
                return Ok(row.get(0));
            }
        }
        Err(Error::Unavailable(format!(
            "others create and remove {kind} `{key}` all the time"
        )))
    }

    /// The value there, unless it has expired by the server's clock.
    pub async fn get(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let facts = &self.0.facts;
        let found = facts
            .ask_again(facts.deadline(), Say::Get, &[&kind, &key])
            .await?;
        Ok(found.first().map(|row| row.get(0)))
    }

    /// Every fact that is not removed and not expired, with the revision they are at: for a start.
    ///
    /// It is asked for in pages, each of which may take what a call may; changes meanwhile are in it.
    pub async fn all(&self, now_s: i64) -> Result<(Vec<Fact>, i64), Error> {
        let facts = &self.0.facts;
        let (mut known, mut since) = (HashMap::new(), 0);
        loop {
            let heard = facts
                .ask_again(facts.deadline(), Say::Hear, &[&since])
                .await?;
            let page = Page::of(&heard);
            since = page.revision;
            for fact in page.facts {
                known.insert((fact.kind.clone(), fact.key.clone()), fact);
            }
            if !page.more {
                break;
            }
        }
        let holds = |fact: &Fact| {
            fact.value.is_some() && fact.expires_at.is_none_or(|expires_at| expires_at > now_s)
        };
        let mut all: Vec<Fact> = known.into_values().filter(holds).collect();
        all.sort_by_key(|fact| fact.revision);
        Ok((all, since))
    }
}

/// Facts after a revision.
pub struct Page {
    pub facts: Vec<Fact>,
    pub more: bool,
    pub revision: i64,
}

impl Page {
    /// What the statement `Hear` answered.
    pub fn of(rows: &[Row]) -> Self {
        let facts: Vec<Fact> = rows.iter().filter_map(fact_of).collect();
        let last = rows.first().map_or(0, |row| row.get(0));
        let newest: i64 = rows.first().map_or(0, |row| row.get(1));
        let more = facts.last().is_some_and(|fact| fact.revision < newest);
        Self {
            revision: match facts.last() {
                Some(fact) if more => fact.revision,
                _ => last,
            },
            more,
            facts,
        }
    }
}

/// None in the row that says that there is none.
fn fact_of(row: &Row) -> Option<Fact> {
    Some(Fact {
        kind: row.get::<_, Option<String>>(2)?,
        key: row.get(3),
        value: row.get(4),
        revision: row.get(5),
        expires_at: row.get(6),
    })
}

/// Changes by column, as the server takes them. Each fact occurs once.
#[derive(Default)]
struct Columns<'a> {
    kinds: Vec<&'a str>,
    keys: Vec<&'a str>,
    values: Vec<Option<&'a [u8]>>,
    expiries: Vec<Option<i64>>,
    positions: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut rows: HashMap<(&str, &str), usize> = HashMap::new();
        let mut columns = Self::default();
        for (position, change) in (1..).zip(changes) {
            let (value, expires_at) = (change.value.as_deref(), change.expires_at);
            match rows.entry((&change.kind, &change.key)) {
                Entry::Occupied(row) => {
                    let row = *row.get();
                    columns.values[row] = value;
                    columns.expiries[row] = expires_at;
                    columns.positions[row] = position;
                }
                Entry::Vacant(row) => {
                    row.insert(columns.kinds.len());
                    columns.kinds.push(&change.kind);
                    columns.keys.push(&change.key);
                    columns.values.push(value);
                    columns.expiries.push(expires_at);
                    columns.positions.push(position);
                }
            }
        }
        columns
    }
}

fn check(kind: &str, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
    for (what, text) in [("bytes: a kind", kind), ("bytes: a key", key)] {
        if text.len() > KEY_BYTES_MAX {
            return Err(Error::too_large(what, text.len(), KEY_BYTES_MAX));
        }
    }
    let size = value.map_or(0, <[u8]>::len);
    if size > VALUE_BYTES_MAX {
        return Err(Error::too_large("bytes: a value", size, VALUE_BYTES_MAX));
    }
    Ok(())
}
