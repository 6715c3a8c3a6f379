//! What is developed: where it lies, how it is built, and what the build writes.

use crate::cli::{
    output::{CliError, Result},
    pack::{Packed, pack_file},
    wit::write_packages,
};
use std::{
    env,
    path::{Path, PathBuf},
};

/// The WebAssembly target of Rust components.
const RUST_TARGET: &str = "wasm32-wasip2";
/// What `npm run build` and the default for Python write.
const COMPONENT: &str = "component.wasm";

/// A project outside Exprsn's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub folder: PathBuf,
    /// For `sh`, in the folder.
    pub build: String,
    /// The component that the build writes.
    component: PathBuf,
}

impl Project {
    /// The project in `folder`. What is not given is as the language has it, which its files tell.
    pub fn open(folder: &Path, build: Option<String>, component: Option<PathBuf>) -> Result<Self> {
        let folder = folder.canonicalize().map_err(|error| {
            CliError::failed(format!("cannot open `{}`: {error}", folder.display()))
                .remedy("name the project's folder")
        })?;
        if !folder.join("component.toml").is_file() {
            return Err(
                CliError::failed(format!("`{}` has no component.toml", folder.display()))
                    .remedy("`exprsn new extension NAME` writes a project that has one"),
            );
        }
        let usual = usual(&folder)?;
        let (build, component) = match (build, component, usual) {
            (Some(build), Some(component), _) => (build, folder.join(component)),
            (build, component, Some(usual)) => (
                build.unwrap_or(usual.0),
                component.map_or(usual.1, |component| folder.join(component)),
            ),
            _ => {
                return Err(CliError::failed(format!(
                    "`{}` has no Cargo.toml, package.json or requirements.txt to tell how it is built",
                    folder.display()
                ))
                .remedy("say so with --build and --component"));
            }
        };
        Ok(Self {
            folder,
            build,
            component,
        })
    }

    /// Writes this host's interfaces beside the project's world where it has none yet, as after a clone.
    pub fn provide_interfaces(&self) -> Result {
        let wit = self.folder.join("wit");
        if wit.is_dir() && !wit.join("deps").exists() {
            write_packages(&wit, &crate::wit::sources())?;
        }
        Ok(())
    }

    /// Packs what the build wrote; the file lies in the project's folder and has the component's name.
    pub fn pack(&self) -> Result<Packed> {
        let migrations = Some(self.folder.join("migrations")).filter(|folder| folder.is_dir());
        let manifest = self.folder.join("component.toml");
        let text = crate::pack::read_manifest(&manifest)?;
        let name = crate::manifest::Manifest::parse(&text)
            .map_err(CliError::failed)?
            .name;
        // Packed in place, it would be mistaken for the language's own output.
        let output = self.folder.join(format!("{name}.wasm"));
        pack_file(&self.component, &manifest, migrations.as_deref(), &output)
    }
}

/// The usual build of the language, and the file that it writes.
fn usual(folder: &Path) -> Result<Option<(String, PathBuf)>> {
    if folder.join("Cargo.toml").is_file() {
        let build = format!("cargo build --release --target {RUST_TARGET}");
        return Ok(Some((build, rust_component(folder)?)));
    }
    if folder.join("package.json").is_file() {
        let install = match folder.join("node_modules").is_dir() {
            true => "",
            false => "npm install && ",
        };
        return Ok(Some((
            format!("{install}npm run build"),
            folder.join(COMPONENT),
        )));
    }
    if folder.join("requirements.txt").is_file() {
        let tool = match folder.join(".venv").is_dir() {
            true => ".venv/bin/componentize-py",
            false => "componentize-py",
        };
        let build = format!("{tool} -d wit -w component componentize app -o {COMPONENT}");
        return Ok(Some((build, folder.join(COMPONENT))));
    }
    Ok(None)
}

/// Where cargo writes a library's component.
fn rust_component(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("Cargo.toml");
    let unreadable =
        |error: String| CliError::failed(format!("cannot read `{}`: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let manifest: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
    let name = |table: &str| manifest.get(table)?.get("name")?.as_str();
    let name = name("lib")
        .or_else(|| name("package"))
        .ok_or_else(|| unreadable("it names no package".to_owned()))?
        .replace('-', "_");
    let target = env::var_os("CARGO_TARGET_DIR").filter(|target| !target.is_empty());
    let target = target.map_or_else(|| folder.join("target"), |target| folder.join(target));
    Ok(target
        .join(RUST_TARGET)
        .join("release")
        .join(format!("{name}.wasm")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_language_is_told_by_its_files() {
        let rust = "[package]\nname = \"link-list\"";
        for (file, text, build, component) in [
            ("Cargo.toml", rust, "cargo build", "release/link_list.wasm"),
            ("package.json", "{}", "npm run build", "component.wasm"),
            (
                "requirements.txt",
                "",
                "componentize-py -d wit",
                "component.wasm",
            ),
        ] {
            let folder = folder(&[("component.toml", ""), (file, text)]);
            let project = Project::open(folder.path(), None, None).unwrap();
            assert!(project.build.contains(build), "{project:?}");
            assert!(project.component.ends_with(component), "{project:?}");
        }
    }

    #[test]
    fn what_is_given_goes_before_the_usual() {
        let folder = folder(&[("component.toml", "")]);
        let error = Project::open(folder.path(), None, None).unwrap_err();
        assert!(error.to_string().contains("--build"), "{error}");
        let project = Project::open(
            folder.path(),
            Some("make".to_owned()),
            Some("out.wasm".into()),
        );
        let project = project.unwrap();
        assert_eq!(project.build, "make");
        assert!(project.component.ends_with("out.wasm"));
        let error = Project::open(&folder.path().join("absent"), None, None).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
