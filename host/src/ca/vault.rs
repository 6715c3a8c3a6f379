//! Where keys of services and of tokens are kept: files under `<data>/ca`, the same ones on every host of a platform.

use super::file;
use crate::cluster::Memory;
use std::{
    fs,
    path::{Path, PathBuf},
};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// The keys under one folder.
#[derive(Clone, Debug)]
pub struct Vault {
    root: PathBuf,
    /// None where one host is alone.
    memory: Option<Memory>,
}

impl Vault {
    /// The keys under `root`, which other hosts have too where there is a `memory`.
    pub fn new(root: &Path, memory: Option<Memory>) -> Self {
        Self {
            root: root.to_owned(),
            memory,
        }
    }

    /// The keys in a folder of this host alone.
    pub fn alone(root: &Path) -> Self {
        Self::new(root, None)
    }

    /// Where a key or a folder of keys lies.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The secret at `path`; if no host has it, it becomes what `make` returns. Blocks.
    pub fn read_or_create(
        &self,
        path: &Path,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let Some(memory) = &self.memory else {
            return file::read_or_create(path, make);
        };
        if let Some(there) = file::read(path)? {
            return Ok(there);
        }
        let shared = memory.secret(&self.relative(path)?, make)?;
        file::read_or_create(path, || Ok(shared))
    }

    /// Deletes a secret, here and for all hosts. Blocks.
    pub fn remove(&self, path: &Path) -> Result<()> {
        if let Some(memory) = &self.memory {
            memory.forget_secret(&self.relative(path)?)?;
        }
        fs::remove_file(path)
            .with_context(|| format!("cannot delete the old key `{}`", path.display()))
    }

    /// Keeps a secret that another host has made. Blocks.
    pub fn hear(&self, relative: &str, sealed: &[u8]) -> Result<()> {
        let memory = self.memory.as_ref().context("this host is alone")?;
        let path = self.checked(relative)?;
        if path.exists() {
            return Ok(());
        }
        let secret = memory.unseal(relative, sealed)?;
        if let Some(folder) = path.parent() {
            file::private_folder(folder)?;
        }
        file::read_or_create(&path, || Ok(secret)).map(drop)
    }

    /// Gives other hosts what this one has made while it was alone, but for what is `known`. Blocks.
    pub fn share(&self, relative: &str, known: &dyn Fn(&str) -> bool) -> Result<()> {
        let folder = self.path(relative);
        let Ok(listing) = fs::read_dir(&folder) else {
            return Ok(());
        };
        for entry in listing {
            let entry = entry.with_context(|| format!("cannot list `{}`", folder.display()))?;
            let name = entry.file_name();
            let inner = format!("{relative}/{}", name.to_string_lossy());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.share(&inner, known)?;
            } else if !known(&inner)
                && let (Some(memory), Some(secret)) = (&self.memory, file::read(&entry.path())?)
            {
                memory.secret(&inner, || Ok(secret))?;
            }
        }
        Ok(())
    }

    fn relative(&self, path: &Path) -> Result<String> {
        let relative = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        relative
            .map(str::to_owned)
            .ok_or_else(|| format_err!("`{}` lies outside of the vault", path.display()))
    }

    /// What another host says lies within the folder, as plainly as this one would say it.
    fn checked(&self, relative: &str) -> Result<PathBuf> {
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        let known = relative.starts_with("keys/") || relative.starts_with("tokens/");
        if !known || !relative.split('/').all(plain) {
            bail!("`{relative}` is no path of a key");
        }
        Ok(self.path(relative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_lies_within_the_folder() {
        let vault = Vault::alone(Path::new("/vault"));
        assert!(vault.checked("keys/exprsn-auth/id/1.eddsa.pk8").is_ok());
        for bad in [
            "../x",
            "keys/../../x",
            "/etc/passwd",
            "root.key.pem",
            "keys//x",
            "keys/.x",
            "keys/a\0",
        ] {
            assert!(vault.checked(bad).is_err(), "{bad}");
        }
    }
}
