//! The chain of hashes of the audit log: pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Keeps these hashes apart from any other use of SHA-256.
const DOMAIN: &[u8] = b"exprsn-audit-1";

/// An entry of the log as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: i64,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// JSON, as it was hashed.
    pub details: String,
    pub previous_hash: String,
    pub hash: String,
}

/// Where the log ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Head {
    pub seq: i64,
    pub hash: String,
}

impl Entry {
    /// The hash that the entry must have: over its fields, each with its length, and the hash before it.
    pub fn computed_hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        let (seq, at) = (self.seq.to_string(), self.at.to_string());
        for field in [
            &seq,
            &at,
            &self.actor,
            &self.action,
            &self.subject,
            &self.details,
            &self.previous_hash,
        ] {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        hex(&hasher.finalize())
    }

    /// The same entry with its hash.
    pub fn hashed(mut self) -> Self {
        self.hash = self.computed_hash();
        self
    }
}

/// Checks that `entries` follow each other and `before`, the entry before them. Returns where they end, or at which
/// entry the chain breaks and how.
pub fn check(before: &Head, entries: &[Entry]) -> Result<Head, (i64, &'static str)> {
    let mut head = before.clone();
    for entry in entries {
        let seq = head.seq + 1;
        if entry.seq != seq {
            return Err((seq, "the entry is missing"));
        }
        if entry.previous_hash != head.hash {
            return Err((seq, "the entry does not follow the one before it"));
        }
        if entry.hash != entry.computed_hash() {
            return Err((seq, "the entry was changed"));
        }
        head = Head {
            seq,
            hash: entry.hash.clone(),
        };
    }
    Ok(head)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Head {
        Head {
            seq: 0,
            hash: GENESIS.to_owned(),
        }
    }

    fn log(length: i64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for seq in 1..=length {
            let previous_hash = entries
                .last()
                .map_or(GENESIS.to_owned(), |entry| entry.hash.clone());
            let entry = Entry {
                seq,
                at: 1_000 + seq,
                actor: "operator:local".into(),
                action: "token.issued".into(),
                subject: format!("token-{seq}"),
                details: r#"{"permissions":["write"]}"#.into(),
                previous_hash,
                hash: String::new(),
            };
            entries.push(entry.hashed());
        }
        entries
    }

    #[test]
    fn an_untouched_log_is_whole() {
        let entries = log(5);
        let head = check(&start(), &entries).expect("whole");
        assert_eq!((head.seq, &head.hash), (5, &entries[4].hash));
        let middle = check(&start(), &entries[..2]).expect("whole");
        assert_eq!(check(&middle, &entries[2..]), Ok(head));
        assert_eq!(check(&start(), &[]), Ok(start()));
    }

    #[test]
    fn every_change_is_found_where_it_was_made() {
        let breaks = |change: fn(&mut Vec<Entry>)| {
            let mut entries = log(5);
            change(&mut entries);
            check(&start(), &entries).expect_err("found").0
        };
        assert_eq!(breaks(|log| log[2].at += 1), 3);
        assert_eq!(breaks(|log| log[2].actor = "operator:other".into()), 3);
        assert_eq!(breaks(|log| log[2].action = "token.revoked".into()), 3);
        assert_eq!(breaks(|log| log[2].subject.push('x')), 3);
        assert_eq!(breaks(|log| log[2].details = "{}".into()), 3);
        assert_eq!(breaks(|log| log[2].hash = log[1].hash.clone()), 3);
        assert_eq!(breaks(|log| drop(log.remove(2))), 3);
        assert_eq!(breaks(|log| log.swap(2, 3)), 3);
        assert_eq!(breaks(|log| log.insert(3, log[2].clone())), 4);
        // An entry rewritten with a hash of its own breaks the link of the next one.
        assert_eq!(
            breaks(|log| {
                log[2].actor = "operator:other".into();
                log[2] = log[2].clone().hashed();
            }),
            4
        );
    }

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let entry = &log(1)[0];
        let moved = Entry {
            actor: "operator:localt".into(),
            action: "oken.issued".into(),
            ..entry.clone()
        };
        assert_ne!(moved.computed_hash(), entry.computed_hash());
    }
}
