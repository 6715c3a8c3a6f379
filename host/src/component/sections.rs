//! What the host reads of a component's outermost level before it compiles anything.

use super::signature::{self, SIGNATURE_SECTION, Signer};
use crate::manifest::{MANIFEST_SECTION, MIGRATIONS_SECTION};
use wasmparser::{CustomSectionReader, Parser, Payload};
use wasmtime::{Result, ensure, error::Context as _, format_err};

/// Largest manifest and migrations that a component may carry, in bytes.
const MANIFEST_BYTES_MAX: usize = 256 << 10;
const MIGRATIONS_BYTES_MAX: usize = 16 << 20;
/// Imports and exports of a component.
const NAMES_MAX: usize = 1_000;

/// The sections of a component at its outermost level.
#[derive(Default)]
pub(super) struct Sections {
    pub(super) manifest: Option<String>,
    pub(super) migrations: Option<String>,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    pub(super) signer: Option<Signer>,
    /// Where the signature's section begins; the file's length where there is none.
    pub(super) signed_bytes: usize,
}

impl Sections {
    /// Reads and checks them. A signature that is there and not good is an error.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut sections = Self {
            signed_bytes: bytes.len(),
            ..Self::default()
        };
        let (mut depth, mut end) = (0u32, 0);
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| {
                format_err!("it is not a WebAssembly component, or corrupt: {error}")
            })?;
            // A section begins where the one before it has ended.
            let begin = end;
            if depth == 0 {
                end = payload.as_section().map_or(end, |(_, range)| range.end);
            }
            match payload {
                Payload::Version {
                    encoding, range, ..
                } if depth == 0 => {
                    ensure!(
                        encoding == wasmparser::Encoding::Component,
                        "it is a core WebAssembly module, not a component; build it for wasm32-wasip2"
                    );
                    end = range.end;
                }
                Payload::CustomSection(section)
                    if depth == 0 && section.name() == SIGNATURE_SECTION =>
                {
                    sections.verify(section.data(), bytes, begin..end)?;
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload if depth == 0 => sections.take(payload)?,
                _ => {}
            }
        }
        Ok(sections)
    }

    fn verify(
        &mut self,
        content: &[u8],
        bytes: &[u8],
        section: std::ops::Range<usize>,
    ) -> Result<()> {
        ensure!(
            section.end == bytes.len(),
            "its `{SIGNATURE_SECTION}` section is not the last one, so it does not vouch for the whole file; sign it anew"
        );
        self.signer = Some(signature::verify(content, &bytes[..section.start])?);
        self.signed_bytes = section.start;
        Ok(())
    }

    fn take(&mut self, payload: Payload<'_>) -> Result<()> {
        match payload {
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                ensure!(
                    self.manifest.is_none(),
                    "it has two `{MANIFEST_SECTION}` sections"
                );
                self.manifest = Some(text(&section, MANIFEST_BYTES_MAX)?);
            }
            Payload::CustomSection(section) if section.name() == MIGRATIONS_SECTION => {
                ensure!(
                    self.migrations.is_none(),
                    "it has two `{MIGRATIONS_SECTION}` sections"
                );
                self.migrations = Some(text(&section, MIGRATIONS_BYTES_MAX)?);
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    ensure!(
                        self.imports.len() < NAMES_MAX,
                        "it has more than {NAMES_MAX} imports"
                    );
                    self.imports
                        .push(import.context("reading imports")?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    ensure!(
                        self.exports.len() < NAMES_MAX,
                        "it has more than {NAMES_MAX} exports"
                    );
                    self.exports
                        .push(export.context("reading exports")?.name.name.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn text(section: &CustomSectionReader<'_>, bytes_max: usize) -> Result<String> {
    let (name, data) = (section.name(), section.data());
    ensure!(
        data.len() <= bytes_max,
        "its `{name}` section has {} bytes, and {bytes_max} are allowed",
        data.len()
    );
    let text =
        std::str::from_utf8(data).with_context(|| format!("its `{name}` section is not UTF-8"))?;
    Ok(text.to_owned())
}
