//! Shipping a component as one file: its manifest and its migrations become custom sections of the binary.
//!
//! **Invariant:** the sections are appended at the outermost level, so any component tool still reads the file.

use crate::shell::{About, Failure, Result, entries, file_name};
use std::path::Path;

/// The section that holds `component.toml` as it was written.
pub const MANIFEST_SECTION: &str = "exprsn:manifest";
/// The section that holds `{"files":[{"name":…,"sql":…},…]}`, sorted by name.
pub const MIGRATIONS_SECTION: &str = "exprsn:migrations";

/// A component's binary begins so: magic number, version 13, layer 1.
const COMPONENT_PREAMBLE: [u8; 8] = [0x00, b'a', b's', b'm', 0x0d, 0x00, 0x01, 0x00];

/// Returns the component with its manifest and migrations in it.
pub fn embed(component: &[u8], manifest: &str, migrations: &str) -> Result<Vec<u8>> {
    if !component.starts_with(&COMPONENT_PREAMBLE) {
        return Err(
            Failure::new("the linker's output is not a WebAssembly component")
                .remedy("build with the target wasm32-wasip2, whose linker makes components"),
        );
    }
    let mut bytes = component.to_vec();
    append_section(&mut bytes, MANIFEST_SECTION, manifest.as_bytes());
    append_section(&mut bytes, MIGRATIONS_SECTION, migrations.as_bytes());
    Ok(bytes)
}

/// Appends a custom section: id 0, the length of the rest, the name with its length, the data.
fn append_section(bytes: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut body = Vec::with_capacity(name.len() + data.len() + 5);
    append_leb128(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    bytes.push(0);
    append_leb128(bytes, body.len());
    bytes.extend_from_slice(&body);
}

fn append_leb128(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads a folder of migrations into the JSON that is embedded; an absent folder means no migrations.
pub fn migrations_json(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        check_migration_name(&path)?;
        let sql = std::fs::read_to_string(&path).about("reading", &path)?;
        files.push(format!(
            "{{\"name\":{},\"sql\":{}}}",
            json_string(&file_name(&path)),
            json_string(&sql)
        ));
    }
    Ok(format!("{{\"files\":[{}]}}", files.join(",")))
}

/// Fails unless the file is named as the host's migrator reads names: nothing misnamed may be silently skipped.
pub fn check_migration_name(path: &Path) -> Result<()> {
    let name = file_name(path);
    if is_migration_name(&name) {
        return Ok(());
    }
    Err(Failure::new(format!("{} is not named as a migration", path.display()))
        .remedy("name it NNNN_name.sql, NNNN_name.sqlite.sql or NNNN_name.postgres.sql (four digits, a-z 0-9 _)"))
}

fn is_migration_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".sql") else {
        return false;
    };
    let stem = stem
        .strip_suffix(".sqlite")
        .or_else(|| stem.strip_suffix(".postgres"))
        .unwrap_or(stem);
    let Some((number, words)) = stem.split_once('_') else {
        return false;
    };
    let word_character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    number.len() == 4
        && number.chars().all(|c| c.is_ascii_digit())
        && !words.is_empty()
        && words.chars().all(word_character)
}

/// A JSON string literal with its quotes.
pub fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if (c as u32) < 0x20 => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_follows_the_specification() {
        let check = |value: usize, expected: &[u8]| {
            let mut bytes = Vec::new();
            append_leb128(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
        };
        check(0, &[0]);
        check(127, &[127]);
        check(128, &[0x80, 1]);
        check(624_485, &[0xe5, 0x8e, 0x26]);
    }

    #[test]
    fn sections_follow_the_component_unchanged() {
        let mut component = COMPONENT_PREAMBLE.to_vec();
        component.extend_from_slice(&[0, 2, 1, b'x']);
        let embedded = embed(&component, "name = 1", "{}").unwrap();
        let mut expected = component.clone();
        expected.extend_from_slice(&[0, 24, 15]);
        expected.extend_from_slice(b"exprsn:manifestname = 1");
        expected.extend_from_slice(&[0, 20, 17]);
        expected.extend_from_slice(b"exprsn:migrations{}");
        assert_eq!(embedded, expected);
    }

    #[test]
    fn a_core_module_is_refused() {
        let core_module = [0x00, b'a', b's', b'm', 1, 0, 0, 0];
        assert!(
            embed(&core_module, "", "")
                .unwrap_err()
                .to_string()
                .contains("wasm32-wasip2")
        );
    }

    #[test]
    fn migration_names() {
        for good in [
            "0001_init.sql",
            "0002_places.sqlite.sql",
            "0002_places.postgres.sql",
            "1234_a_b2.sql",
        ] {
            assert!(is_migration_name(good), "{good}");
        }
        for bad in [
            "1_init.sql",
            "0001-init.sql",
            "0001_.sql",
            "0001_init.mysql.sql",
            "0001_Init.sql",
            "init.sql",
            "0001_a.sql~",
        ] {
            assert!(!is_migration_name(bad), "{bad}");
        }
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"\\\n\u{1}é"), r#""a\"\\\n\u0001é""#);
    }

    #[test]
    fn an_absent_folder_has_no_migrations() {
        assert_eq!(
            migrations_json(Path::new("/nonexistent")).unwrap(),
            r#"{"files":[]}"#
        );
    }
}
