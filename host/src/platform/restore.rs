//! What a start runs: the files that are configured, or what they were swapped for since, and what was installed.

use crate::{
    ca::{Authority, ComponentCertificate},
    cluster::Cluster,
    component::ComponentFile,
    deployments::{Current, Deployments},
    library::Library,
    name::ServiceName,
    telemetry::chain,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use wasmtime::{Result, error::Context as _, format_err};

/// A component that a start runs.
pub(super) struct Planned {
    pub file: ComponentFile,
    /// By which it was admitted; none where platform.toml is the operator's word.
    pub certificate: Option<ComponentCertificate>,
    /// It is not in platform.toml, and its failing does not keep the platform from starting.
    pub installed: bool,
}

/// Where earlier changes are remembered.
pub(super) struct Memory<'a> {
    pub deployments: &'a Deployments,
    pub library: &'a Arc<Library>,
    pub cluster: Option<&'a Arc<Cluster>>,
    pub authority: &'a Authority,
}

impl Memory<'_> {
    /// What runs in place of the configured `files`, and beside them what was installed if that is `wanted`.
    ///
    /// A file that is another one than when its service was swapped is the operator's later word. What was swapped in
    /// and is admitted no longer gives way to the file, with a warning.
    pub async fn plan(&self, files: Vec<ComponentFile>, wanted: bool) -> Result<Vec<Planned>> {
        let mut current = self
            .deployments
            .current()
            .await
            .context("reading what services ran as")?;
        let mut planned = Vec::new();
        for file in files {
            let current = current.remove(file.manifest.name.as_str());
            planned.push(self.in_place_of(file, current).await);
        }
        let installed = current
            .into_iter()
            .filter(|(_, one)| one.configured.is_none());
        for (name, current) in installed.filter(|_| wanted) {
            match self.admitted(&name, &current.digest).await {
                Ok((file, certificate)) => planned.push(Planned {
                    file,
                    certificate: Some(certificate),
                    installed: true,
                }),
                Err(error) => {
                    tracing::error!(
                        service = name,
                        error = chain(&error),
                        "an installed service does not start"
                    );
                }
            }
        }
        Ok(planned)
    }

    async fn in_place_of(&self, file: ComponentFile, current: Option<Current>) -> Planned {
        let name = file.manifest.name.clone();
        let swapped = current.filter(|current| {
            current.configured.as_deref() == Some(&file.digest) && current.digest != file.digest
        });
        if let Some(current) = swapped {
            match self.admitted(name.as_str(), &current.digest).await {
                Ok((file, certificate)) => {
                    return Planned {
                        file,
                        certificate: Some(certificate),
                        installed: false,
                    };
                }
                Err(error) => {
                    tracing::warn!(service = %name, digest = current.digest, error = chain(&error),
                        "what was swapped in does not start; the configured file does");
                }
            }
        }
        Planned {
            file,
            certificate: None,
            installed: false,
        }
    }

    async fn admitted(
        &self,
        name: &str,
        digest: &str,
    ) -> Result<(ComponentFile, ComponentCertificate)> {
        let name = ServiceName::parse(name).map_err(|error| format_err!("{error}"))?;
        super::together::fetch(self.library, self.cluster, digest).await?;
        let (library, wanted) = (self.library.clone(), digest.to_owned());
        let file = tokio::task::spawn_blocking(move || library.get(&wanted)).await??;
        let certificate = self.authority.admitted(&name, digest).await?;
        Ok((file, certificate))
    }
}

/// Puts the configured files into the library, so that a service can return to one that was overwritten. Blocks.
pub(super) fn keep(library: &Library, files: &BTreeMap<ServiceName, (PathBuf, String)>) {
    for (name, (path, digest)) in files {
        if library.lists(digest) {
            continue;
        }
        let kept = ComponentFile::read(path).and_then(|file| {
            // Another build has been put there meanwhile: that one is taken in when it is swapped in.
            if file.digest == *digest {
                library.put(file.bytes).map(drop)
            } else {
                Ok(())
            }
        });
        if let Err(error) = kept {
            tracing::warn!(service = %name, error = chain(&error), "a component could not be kept; no rollback leads to it");
        }
    }
}
