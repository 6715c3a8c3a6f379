//! A component from bytes to runnable code: read, checked, compiled in a process of its own, cached, loaded.
//!
//! **Invariant:** machine code is loaded only if this host's key authenticates it; see [`Cache::load`].

use crate::{
    capability,
    config::PlatformConfig,
    manifest::{MANIFEST_SECTION, Manifest, Migrations},
};
use aws_lc_rs::{digest, hmac};
use sections::Sections;
use std::{
    fs,
    hash::{Hash, Hasher},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use wasmtime::{
    Engine, Result, bail, component::Component, ensure, error::Context as _, format_err,
};

mod sections;
mod signature;

pub use signature::{SIGNATURE_SECTION, Signer, SigningKey, is_key};

/// Largest component file, in bytes.
pub const COMPONENT_BYTES_MAX: u64 = 128 << 20;

/// Largest machine code that the compiling process may return, in bytes.
const CODE_BYTES_MAX: u64 = 512 << 20;
/// How far the compiling process steps back from processors that others want: 19 is furthest.
const COMPILE_NICENESS: i32 = 15;

/// Interfaces that languages' standard libraries always import, linked with nothing behind them (CPython's import
/// `wasi:sockets`, which refuse every address and name), and the types of HTTP.
const BASELINE: &[&str] = &[
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:io/",
    "wasi:random/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/types@",
];

const MAC_BYTES: usize = 32;

/// Compiled components that the cache keeps.
const CACHED_MAX: usize = 256;

/// A component file, read and checked, not yet compiled.
#[derive(Debug)]
pub struct ComponentFile {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    pub manifest: Manifest,
    pub migrations: Migrations,
    /// Interfaces by full name: `exprsn:sql/database@1.0.0`.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Who has signed it, if anybody; the signature is good.
    pub signer: Option<Signer>,
    /// Where its signature begins; the file's length where it has none.
    signed_bytes: usize,
}

impl ComponentFile {
    /// Reads a component with its embedded manifest and migrations. The error names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let size = fs::metadata(path)
            .map(|meta| meta.len())
            .map_err(|error| missing(path, &error))?;
        ensure!(
            size <= COMPONENT_BYTES_MAX,
            "component `{}` is larger than {COMPONENT_BYTES_MAX} bytes",
            path.display()
        );
        let bytes = fs::read(path).map_err(|error| missing(path, &error))?;
        Self::parse(path, bytes)
            .with_context(|| format!("component `{}` cannot be used", path.display()))
    }

    /// Checks bytes that were read from `path`, or are to lie there. The error says what is wrong with them.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let sections = Sections::read(&bytes)?;
        let manifest = sections.manifest.ok_or_else(|| {
            format_err!("it has no `{MANIFEST_SECTION}` section; build it with `cargo xtask build-components`")
        })?;
        let manifest = Manifest::parse(&manifest)
            .map_err(|error| format_err!("its component.toml is not valid: {error}"))?;
        let mut migrations = match sections.migrations {
            Some(json) => serde_json::from_str(&json).context("its migrations cannot be read")?,
            None => Migrations::default(),
        };
        migrations.schema = manifest.schema;
        let digest = hex(digest::digest(&digest::SHA256, &bytes).as_ref());
        Ok(Self {
            path: path.to_owned(),
            bytes,
            digest,
            manifest,
            migrations,
            imports: sections.imports,
            exports: sections.exports,
            signer: sections.signer,
            signed_bytes: sections.signed_bytes,
        })
    }

    /// The file's bytes with a signature at their end, instead of one that is there.
    pub fn signed(&self, key: &SigningKey) -> Result<Vec<u8>> {
        let mut bytes = self.bytes[..self.signed_bytes].to_vec();
        let section = key.section(&bytes)?;
        bytes.extend(section);
        Ok(bytes)
    }

    /// Compares imports with the grants that the manifest asks for: neither more nor less.
    pub fn check_requests(&self) -> Result<()> {
        let asked = self.manifest.grants.names();
        for import in self.imports.iter().filter(|import| !is_baseline(import)) {
            let capability = capability::of_import(import).ok_or_else(|| {
                format_err!("it imports `{import}`, which this host does not offer to any service")
            })?;
            ensure!(
                asked.contains(&capability),
                "it imports `{import}` but does not ask for it: write [grants.{capability}] in its component.toml"
            );
        }
        let unused = asked.iter().find(|name| !self.uses(name));
        if let Some(name) = unused {
            bail!(
                "it asks for [grants.{name}] in its component.toml but imports nothing of it: remove the grant"
            );
        }
        Ok(())
    }

    /// The interfaces of a capability that it imports, but for those of types alone.
    pub fn imports_of(&self, name: &str) -> Vec<&str> {
        without_types(of_capability(&self.imports, name))
    }

    /// The interfaces of a capability that it exports for the host to call, but for those of types alone.
    pub fn exports_of(&self, name: &str) -> Vec<&str> {
        without_types(of_capability(&self.exports, name))
    }

    /// Whether the component makes use of a capability: an import, an export that it triggers, or `sql`'s outbox.
    fn uses(&self, name: &str) -> bool {
        let imported = |name| !of_capability(&self.imports, name).is_empty();
        imported(name)
            || !self.exports_of(name).is_empty()
            || (matches!(name, "queue" | "events") && imported("sql"))
    }
}

/// An interface of types lets nobody do anything.
fn without_types(mut interfaces: Vec<&str>) -> Vec<&str> {
    interfaces.retain(|interface| !interface.contains("/types@"));
    interfaces
}

fn of_capability<'a>(interfaces: &'a [String], name: &str) -> Vec<&'a str> {
    interfaces
        .iter()
        .map(String::as_str)
        .filter(|interface| capability::of_import(interface) == Some(name))
        .collect()
}

fn missing(path: &Path, error: &std::io::Error) -> wasmtime::Error {
    format_err!(
        "cannot read component `{}`: {error}; build it with `cargo xtask build-components`",
        path.display()
    )
}

fn is_baseline(import: &str) -> bool {
    BASELINE.iter().any(|prefix| import.starts_with(prefix))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiled components by content, each authenticated with a key that only this host has.
pub struct Cache {
    folder: PathBuf,
    key: hmac::Key,
    /// What the engine demands of code compiled for it.
    compatibility: u64,
}

impl Cache {
    /// Opens (or makes) the cache folder and its key.
    pub fn open(folder: &Path, engine: &Engine) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| {
            format!(
                "cannot create `{}`; is the data directory writable?",
                folder.display()
            )
        })?;
        let key = secret_file(&folder.join("key"))?;
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            folder: folder.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            compatibility: hasher.finish(),
        })
    }

    /// The component, from the cache or compiled by a process of its own. Says whether it was in the cache.
    pub async fn get(
        &self,
        engine: &Engine,
        file: &ComponentFile,
        config: &PlatformConfig,
    ) -> Result<(Component, bool)> {
        let path = self
            .folder
            .join(format!("{}-{:016x}.cwasm", file.digest, self.compatibility));
        if let Some(component) = self.load(engine, &path)? {
            return Ok((component, true));
        }
        let code = compile_in_child(file, config)
            .await
            .with_context(|| format!("compiling component `{}`", file.path.display()))?;
        let mut sealed = hmac::sign(&self.key, &code).as_ref().to_vec();
        sealed.extend_from_slice(&code);
        write_atomically(&path, &sealed)?;
        self.prune(&path);
        let component = self.load(engine, &path)?;
        Ok((
            component.context(
                "the compiled code was not found in the cache right after it was written",
            )?,
            false,
        ))
    }

    /// Removes the files written longest ago, but for `CACHED_MAX` and the one just written.
    fn prune(&self, written: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut cached: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "cwasm")
                    && path != written
            })
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        cached.sort();
        let surplus = cached.len().saturating_sub(CACHED_MAX);
        for (_, path) in &cached[..surplus] {
            // Another host may share the folder and have removed it already.
            let _ = fs::remove_file(path);
        }
    }

    /// Loads a cached file; none if there is none or it is not authentic (which is logged, and compiled anew).
    fn load(&self, engine: &Engine, path: &Path) -> Result<Option<Component>> {
        let Ok(sealed) = fs::read(path) else {
            return Ok(None);
        };
        let Some((mac, code)) = sealed.split_at_checked(MAC_BYTES) else {
            return Ok(None);
        };
        if hmac::verify(&self.key, code, mac).is_err() {
            tracing::warn!(path = %path.display(), "cached code is not authentic; compiling anew");
            return Ok(None);
        }
        Ok(Some(deserialize_authenticated(engine, code)?))
    }
}

/// Loads machine code that the caller has authenticated.
#[allow(
    unsafe_code,
    reason = "the one place that needs it: loading authenticated precompiled code"
)]
fn deserialize_authenticated(engine: &Engine, code: &[u8]) -> Result<Component> {
    // SAFETY: `Component::deserialize` runs whatever machine code it is given, so the code must come from
    // `Engine::precompile_component` unchanged. The only caller has just verified an HMAC-SHA256 over exactly these
    // bytes, in memory that nothing else writes to. The key was made by this host, is readable by its user alone
    // (mode 0600), is never lent to a guest, and is used to sign in one place only: on what the compiling process,
    // which is this same binary, returned. Whoever can read the key or write to our memory already is this user.
    unsafe { Component::deserialize(engine, code) }.context(
        "loading compiled code; a component too large for the pool needs a larger [platform] pool_memory_bytes_max or pool_table_elements_max",
    )
}

/// Reads a secret of 32 bytes, or makes it with mode 0600.
fn secret_file(path: &Path) -> Result<Vec<u8>> {
    if let Ok(key) = fs::read(path) {
        ensure!(
            key.len() == MAC_BYTES,
            "`{}` is not a key of {MAC_BYTES} bytes; remove the folder",
            path.display()
        );
        return Ok(key);
    }
    let mut key = vec![0; MAC_BYTES];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| format_err!("the system gives no random bytes"))?;
    write_atomically(path, &key)?;
    Ok(key)
}

/// Writes a file with mode 0600 under another name and renames it, so that no reader sees half of it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp-{}", uuid::Uuid::new_v4().simple()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| {
        format!(
            "cannot write `{}`; is the data directory writable?",
            path.display()
        )
    })
}

/// Compiles in a child process: wasmtime keeps the compiler's memory for the engine's life, and a hostile component
/// may want without bound.
async fn compile_in_child(file: &ComponentFile, config: &PlatformConfig) -> Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut child = tokio::process::Command::new(program)
        .arg("compile")
        .args([
            "--memory-bytes-max",
            &config.compile_memory_bytes_max.to_string(),
        ])
        .args(["--cpu-s-max", &config.compile_cpu_s_max.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the compiling process")?;
    let mut input = child.stdin.take().expect("stdin is piped");
    let output = child.stdout.take().expect("stdout is piped");
    // One more than is allowed, to know more from all.
    let mut output = output.take(CODE_BYTES_MAX + 1);
    let mut errors = child.stderr.take().expect("stderr is piped");
    let (mut code, mut message) = (Vec::new(), String::new());
    let feed = async {
        // A child that dies early closes the pipe; its exit status tells why.
        let _ = input.write_all(&file.bytes).await;
        drop(input);
    };
    let receive = async {
        let read = output.read_to_end(&mut code).await;
        // A child that has more to say than it may finds the pipe closed.
        drop(output);
        read
    };
    let (_, read, _) = tokio::join!(feed, receive, errors.read_to_string(&mut message));
    read.context("reading the compiled code")?;
    ensure!(
        code.len() as u64 <= CODE_BYTES_MAX,
        "its machine code has more than {CODE_BYTES_MAX} bytes"
    );
    let status = child
        .wait()
        .await
        .context("waiting for the compiling process")?;
    ensure!(
        status.success(),
        "{}",
        match message.trim() {
            "" => format!(
                "the compiling process ended with {status}; it may have passed [platform] compile_memory_bytes_max or compile_cpu_s_max"
            ),
            told => told.to_owned(),
        }
    );
    Ok(code)
}

/// What the child process does: bounds itself, reads a component from stdin, writes machine code to stdout.
pub fn compile_stdin_to_stdout(memory_bytes_max: u64, cpu_s_max: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use std::io::Read as _;
    let bound = |resource, value| {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
        .context("bounding the compiling process")
    };
    bound(Resource::As, memory_bytes_max)?;
    bound(Resource::Cpu, cpu_s_max)?;
    bound(Resource::Core, 0)?;
    // Requests go before compilation, which may take all processors there are.
    rustix::process::setpriority_process(None, COMPILE_NICENESS)
        .context("lowering the compiling process's priority")?;
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(COMPONENT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .context("reading the component")?;
    let code = crate::engine::compiling()?.precompile_component(&bytes)?;
    std::io::stdout()
        .write_all(&code)
        .context("writing the compiled code")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::MANIFEST_SECTION;

    /// The smallest component that there is: a manifest.
    pub(crate) fn component(manifest: &str) -> Vec<u8> {
        let mut content = super::signature::leb128(MANIFEST_SECTION.len());
        content.extend_from_slice(MANIFEST_SECTION.as_bytes());
        content.extend_from_slice(manifest.as_bytes());
        let mut bytes = b"\0asm\x0d\0\x01\0\0".to_vec();
        bytes.extend(super::signature::leb128(content.len()));
        bytes.extend(content);
        bytes
    }
}
