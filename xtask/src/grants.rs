//! A component's imports against the grants that its manifest asks for: neither more nor less.
//!
//! The host checks the same again when it loads the component; here the developer learns it earlier.

use crate::manifest;
use crate::shell::{Failure, Result};
use std::collections::BTreeSet;

const IMPORT_SECTION: u8 = 10;

/// Fails with the grants that are missing and those that nothing uses.
pub fn check_grants(name: &str, component: &[u8], manifest: &str) -> Result<()> {
    let imports = imports(component)
        .ok_or_else(|| Failure::new(format!("{name}: its imports cannot be read")))?;
    let used: BTreeSet<&str> = imports
        .iter()
        .filter_map(|import| capability_of(import))
        .collect();
    let asked: BTreeSet<&str> = asked_grants(manifest).collect();
    let missing: Vec<String> = used
        .difference(&asked)
        .map(|grant| format!("add [grants.{grant}]"))
        .collect();
    let surplus: Vec<String> = asked
        .difference(&used)
        // A transaction's outbox adds jobs and publishes events without importing more than `sql`.
        .filter(|grant| !(used.contains("sql") && matches!(**grant, "queue" | "events")))
        .map(|grant| format!("remove [grants.{grant}]"))
        .collect();
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    let remedy = [missing, surplus].concat().join(", ");
    Err(Failure::new(format!(
        "{name} imports other capabilities than its component.toml asks for"
    ))
    .remedy(format!("in component.toml: {remedy}")))
}

/// The capability that lends an interface; none for what every component gets.
fn capability_of(import: &str) -> Option<&str> {
    let (package, interface) = import.split_once('/')?;
    match package {
        "wasi:config" => Some("config"),
        "wasi:http"
            if interface.starts_with("client") || interface.starts_with("outgoing-handler") =>
        {
            Some("http")
        }
        _ => package.strip_prefix("exprsn:"),
    }
}

/// `[grants.sql]` as a header, or `sql = {}` below `[grants]`.
fn asked_grants(manifest: &str) -> impl Iterator<Item = &str> {
    let headers = manifest::tables(manifest).filter_map(|table| table.strip_prefix("grants."));
    let headers = headers.map(|grant| grant.split('.').next().unwrap_or(grant));
    headers
        .chain(manifest::keys(manifest, "grants").map(|key| key.split('.').next().unwrap_or(key)))
}

/// The names that a component imports at its outermost level; nothing if the bytes are no component.
fn imports(component: &[u8]) -> Option<Vec<&str>> {
    let mut rest = Reader(component.get(8..)?);
    let mut names = Vec::new();
    while !rest.0.is_empty() {
        let id = rest.byte()?;
        let section = rest.sized()?;
        if id == IMPORT_SECTION {
            let mut section = Reader(section);
            for _ in 0..section.number()? {
                names.push(section.import()?);
            }
        }
    }
    Some(names)
}

/// Reads the binary format of components as far as imports need it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<usize> {
        let mut value = 0usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Bytes with their length before them.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A name, then what it is: module, function, value, type, component or instance.
    fn import(&mut self) -> Option<&'a str> {
        if self.byte()? > 1 {
            return None;
        }
        let name = std::str::from_utf8(self.sized()?).ok()?;
        match self.byte()? {
            0 => self.byte().and_then(|_| self.number()).map(drop)?,
            2 => self.byte().and_then(|_| self.number()).map(drop)?,
            // A type is equal to another, or a fresh resource, which has no number.
            3 if self.byte()? == 1 => {}
            _ => self.number().map(drop)?,
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component of import sections only.
    fn component(imports: &[(&str, &[u8])]) -> Vec<u8> {
        let mut section = vec![imports.len() as u8];
        for (name, description) in imports {
            section.extend([0, name.len() as u8]);
            section.extend(name.bytes());
            section.extend(*description);
        }
        let mut bytes = vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0, 7, 2, 9, 9];
        bytes.extend([IMPORT_SECTION, section.len() as u8]);
        bytes.extend(section);
        bytes
    }

    #[test]
    fn imports_of_all_sorts_are_read() {
        let bytes = component(&[
            ("a", &[3, 1]),
            ("b", &[3, 0, 4]),
            ("exprsn:sql/database@1.0.0", &[5, 2]),
            ("c", &[1, 0]),
        ]);
        assert_eq!(
            imports(&bytes).unwrap(),
            ["a", "b", "exprsn:sql/database@1.0.0", "c"]
        );
        assert_eq!(imports(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn grants_equal_imports() {
        let bytes = component(&[
            ("wasi:io/streams@0.2.0", &[5, 0]),
            ("wasi:http/types@0.3.0", &[5, 1]),
            ("wasi:http/client@0.3.0", &[5, 2]),
        ]);
        let check = |manifest: &str| {
            check_grants("x", &bytes, manifest).map_err(|failure| failure.to_string())
        };
        assert_eq!(check("[grants.http]\n"), Ok(()));
        assert_eq!(check("[grants]\nhttp = { egress = [] }\n"), Ok(()));
        let failure = check("[grants.sql]\n").unwrap_err();
        assert!(
            failure.contains("add [grants.http], remove [grants.sql]"),
            "{failure}"
        );
    }
}
