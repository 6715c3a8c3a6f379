//! Packing: a component becomes one file that can be shipped, its manifest and its migrations custom sections of it.
//!
//! The sections stand at the outermost level, after the component, so any component tool still reads the file.
//! `cargo xtask build-components` writes the same for the platform's own services.

use crate::{
    capability::sql::migrate,
    manifest::{MANIFEST_SECTION, MIGRATIONS_SECTION, Manifest, MigrationFile, Migrations},
};
use std::{fs, ops::Range, path::Path};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// A signature vouches for the bytes before it, so packing anew takes it away.
const SIGNATURE_SECTION: &str = "exprsn:signature";
/// Sections that packing writes, or that are void after it.
const REPLACED: [&str; 3] = [MANIFEST_SECTION, MIGRATIONS_SECTION, SIGNATURE_SECTION];

/// A binary begins so: magic number, then version 1 of a core module or version 13, layer 1 of a component.
const MAGIC: &[u8] = b"\0asm";
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [13, 0, 1, 0];
const PREAMBLE_BYTES: usize = 8;
const CUSTOM_SECTION: u8 = 0;

/// The component with `manifest` and `migrations` in it, in place of those that it had.
pub fn pack(component: &[u8], manifest: &str, migrations: &Migrations) -> Result<Vec<u8>> {
    check_preamble(component)?;
    let migrations = serde_json::to_string(migrations).context("writing the migrations down")?;
    let mut packed = component[..PREAMBLE_BYTES].to_vec();
    let mut at = PREAMBLE_BYTES;
    while at < component.len() {
        let section = Section::read(component, at)?;
        if !REPLACED
            .iter()
            .any(|name| section.is_called(component, name))
        {
            packed.extend_from_slice(&component[at..section.body.end]);
        }
        at = section.body.end;
    }
    append(&mut packed, MANIFEST_SECTION, manifest.as_bytes());
    append(&mut packed, MIGRATIONS_SECTION, migrations.as_bytes());
    Ok(packed)
}

fn check_preamble(bytes: &[u8]) -> Result<()> {
    let preamble = bytes.get(..PREAMBLE_BYTES).unwrap_or_default();
    match preamble.strip_prefix(MAGIC) {
        Some(version) if version == COMPONENT => Ok(()),
        Some(version) if version == CORE_MODULE => bail!(
            "it is a core WebAssembly module, not a component; build with `cargo build --target wasm32-wasip2`, or make a \
             component of it with `wasm-tools component new`"
        ),
        _ => bail!("it is not a WebAssembly component"),
    }
}

/// A section of the outermost level.
struct Section {
    id: u8,
    /// What follows its length.
    body: Range<usize>,
}

impl Section {
    fn read(bytes: &[u8], at: usize) -> Result<Self> {
        let cut = || {
            format_err!(
                "it is not a WebAssembly component, or cut off: the section at byte {at} does not end"
            )
        };
        let (length, begin) = leb128(bytes, at + 1).ok_or_else(cut)?;
        let end = begin
            .checked_add(length)
            .filter(|end| *end <= bytes.len())
            .ok_or_else(cut)?;
        Ok(Self {
            id: bytes[at],
            body: begin..end,
        })
    }

    /// Whether it is the custom section of this name.
    fn is_called(&self, bytes: &[u8], name: &str) -> bool {
        let named = || {
            let (length, begin) = leb128(bytes, self.body.start)?;
            bytes.get(begin..begin.checked_add(length)?)
        };
        self.id == CUSTOM_SECTION && named() == Some(name.as_bytes())
    }
}

/// An unsigned number and where it ends.
fn leb128(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value as usize, at));
        }
    }
    None
}

fn append(bytes: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut body = Vec::with_capacity(name.len() + data.len() + 5);
    append_leb128(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    bytes.push(CUSTOM_SECTION);
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

/// The migrations in a folder, in order of their names; an absent folder has none.
///
/// A file that is not named as the migrator reads names is an error: nothing may be skipped in silence.
pub fn read_migrations(folder: &Path) -> Result<Migrations> {
    let mut migrations = Migrations::default();
    if !folder.exists() {
        return Ok(migrations);
    }
    let about = || format!("reading migrations from `{}`", folder.display());
    for entry in fs::read_dir(folder).with_context(about)? {
        let entry = entry.with_context(about)?;
        let sql = fs::read_to_string(entry.path())
            .with_context(|| format!("reading `{}`", entry.path().display()))?;
        migrations.files.push(MigrationFile {
            name: entry.file_name().to_string_lossy().into_owned(),
            sql,
        });
    }
    migrations.files.sort_by(|a, b| a.name.cmp(&b.name));
    migrate::select(&migrations.files, migrate::Engine::Sqlite).with_context(about)?;
    Ok(migrations)
}

/// The text of a `component.toml`, checked.
pub fn read_manifest(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|error| {
        format_err!(
            "cannot read the manifest `{}`: {error}; name it with --manifest",
            path.display()
        )
    })?;
    Manifest::parse(&text)
        .map_err(|error| format_err!("`{}` is not valid: {error}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [u8; 8] = [0, b'a', b's', b'm', 13, 0, 1, 0];

    fn migrations(names: &[&str]) -> Migrations {
        let file = |name: &&str| MigrationFile {
            name: (*name).to_owned(),
            sql: "SELECT 1".to_owned(),
        };
        Migrations {
            files: names.iter().map(file).collect(),
            schema: None,
        }
    }

    #[test]
    fn sections_follow_the_component_unchanged() {
        let mut component = EMPTY.to_vec();
        component.extend_from_slice(&[0, 2, 1, b'x']);
        let packed = pack(&component, "name = 1", &Migrations::default()).unwrap();
        let mut expected = component;
        expected.extend_from_slice(&[0, 24, 15]);
        expected.extend_from_slice(b"exprsn:manifestname = 1");
        expected.extend_from_slice(&[0, 30, 17]);
        expected.extend_from_slice(br#"exprsn:migrations{"files":[]}"#);
        assert_eq!(packed, expected);
    }

    #[test]
    fn packing_anew_replaces_and_takes_the_signature_away() {
        let mut first = pack(&EMPTY, "old", &migrations(&["0001_a.sql"])).unwrap();
        append(&mut first, SIGNATURE_SECTION, b"{}");
        let second = pack(&first, "new", &Migrations::default()).unwrap();
        assert_eq!(second, pack(&EMPTY, "new", &Migrations::default()).unwrap());
    }

    #[test]
    fn what_is_no_component_is_refused_with_the_remedy() {
        let refused = |bytes: &[u8]| {
            pack(bytes, "", &Migrations::default())
                .unwrap_err()
                .to_string()
        };
        let core = refused(b"\0asm\x01\0\0\0");
        assert!(
            core.contains("core") && core.contains("wasm32-wasip2"),
            "{core}"
        );
        assert!(refused(b"").contains("not a WebAssembly component"));
        let cut = [&EMPTY[..], &[0, 200, 1, b'x']].concat();
        assert!(refused(&cut).contains("cut off"));
    }

    #[test]
    fn misnamed_migrations_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(folder.path().join(name), "SELECT 1").unwrap();
        write("0002_b.sql");
        write("0001_a.sql");
        let names = |found: Migrations| -> Vec<String> {
            found.files.into_iter().map(|file| file.name).collect()
        };
        assert_eq!(
            names(read_migrations(folder.path()).unwrap()),
            ["0001_a.sql", "0002_b.sql"]
        );
        write("3_c.sql");
        let error = format!("{:?}", read_migrations(folder.path()).unwrap_err());
        assert!(error.contains("3_c.sql"), "{error}");
        assert!(names(read_migrations(&folder.path().join("absent")).unwrap()).is_empty());
    }
}
