//! The few values that tasks need from TOML files, read line by line so that no parser has to be compiled first.
//!
//! The host reads the same files with a real parser and refuses what is wrong in them.

/// The string at `key` in `table` (`""` is the part before the first header).
pub fn string(toml: &str, table: &str, key: &str) -> Option<String> {
    let value = value(toml, table, key)?;
    let (text, _) = value.strip_prefix('"')?.split_once('"')?;
    Some(text.to_string())
}

/// The whole number at `key` in `table`.
pub fn integer(toml: &str, table: &str, key: &str) -> Option<u64> {
    value(toml, table, key)?
        .split('#')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// The headers in the file, without their brackets.
pub fn tables(toml: &str) -> impl Iterator<Item = &str> {
    toml.lines().filter_map(header)
}

/// The keys written in `table`.
pub fn keys<'a>(toml: &'a str, table: &'a str) -> impl Iterator<Item = &'a str> {
    pairs(toml, table).map(|(key, _)| key)
}

fn value<'a>(toml: &'a str, table: &'a str, key: &str) -> Option<&'a str> {
    pairs(toml, table).find_map(|(name, value)| (name == key).then_some(value))
}

fn pairs<'a>(toml: &'a str, table: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut current = "";
    toml.lines().filter_map(move |line| {
        if let Some(name) = header(line) {
            current = name;
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let is_comment = key.trim_start().starts_with('#');
        (current == table && !is_comment).then_some((key.trim(), value.trim()))
    })
}

fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?;
    let (name, _) = inner.trim_start_matches('[').split_once(']')?;
    Some(name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "name = \"exprsn-notes\" # full\nport = 3021 # next\n[[route]]\nname = \"no\"\n[grants.sql]\n";

    #[test]
    fn a_key_belongs_to_its_table() {
        assert_eq!(string(TOML, "", "name").as_deref(), Some("exprsn-notes"));
        assert_eq!(string(TOML, "route", "name").as_deref(), Some("no"));
        assert_eq!(string(TOML, "", "version"), None);
        assert_eq!(integer(TOML, "", "port"), Some(3021));
    }

    #[test]
    fn headers_are_listed() {
        assert_eq!(tables(TOML).collect::<Vec<_>>(), ["route", "grants.sql"]);
    }
}
