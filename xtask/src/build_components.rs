//! `cargo xtask build-components`: from a folder of source to one shippable `.wasm` file.
//!
//! A component is a folder with a `component.toml`; beside it `sdk` is a library and `examples` go their own ways.
//! The test guests of the host have the same layout in a workspace of their own.

use crate::embed::{embed, json_string, migrations_json};
use crate::grants::check_grants;
use crate::shell::{
    About, Failure, Result, bold, dim, entries, file_name, line, run, say, seconds, target_dir,
    write_if_changed,
};
use crate::{manifest, toolchain};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Which of the two workspaces of components is meant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Services,
    Guests,
}

impl Kind {
    pub fn workspace(self, root: &Path) -> PathBuf {
        match self {
            Kind::Services => root.join("components"),
            Kind::Guests => root.join("host/tests/guests"),
        }
    }

    /// Where the finished files go.
    pub fn output(self, root: &Path) -> PathBuf {
        match self {
            Kind::Services => target_dir(root).join("components"),
            Kind::Guests => target_dir(root).join("guests"),
        }
    }
}

/// What a person asked for.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub kind: Kind,
    /// Short or full names; none means all.
    pub names: Vec<String>,
    pub json: bool,
}

/// Builds, embeds manifest and migrations, writes the files that changed, and says what was made.
pub fn build_components(root: &Path, request: &Request) -> Result<()> {
    build(root, request).map(drop)
}

/// The same, answering what is ready to ship.
pub fn build(root: &Path, request: &Request) -> Result<Vec<Finished>> {
    let all = find(root, request.kind)?;
    let chosen = choose(&all, &request.names)?;
    let mut finished = Vec::new();
    if chosen.is_empty() {
        say(&format!(
            "no component in {}",
            request.kind.workspace(root).display()
        ));
    } else {
        let artifacts = compile(root, request.kind, &chosen)?;
        finished = chosen
            .iter()
            .map(|source| finish(root, request.kind, source, &artifacts))
            .collect::<Result<_>>()?;
    }
    if request.names.is_empty() {
        remove_stale(&request.kind.output(root), &all)?;
    }
    report(&finished, request.json);
    Ok(finished)
}

/// Folders that the workspaces exclude.
const NOT_MEMBERS: [&str; 2] = ["examples", "target"];

/// A component's source: its folder and the names written in it.
#[derive(Debug)]
struct Source {
    folder: PathBuf,
    name: String,
    package: String,
    manifest: String,
    /// As JSON, ready to embed.
    migrations: String,
}

fn find(root: &Path, kind: Kind) -> Result<Vec<Source>> {
    let is_member =
        |path: &PathBuf| path.is_dir() && !NOT_MEMBERS.contains(&file_name(path).as_str());
    let folders = entries(&kind.workspace(root))?
        .into_iter()
        .filter(is_member);
    let sources = folders.filter_map(|folder| source(root, folder, kind).transpose());
    sources.collect()
}

/// Reads a folder of the workspace; a plain library is no component.
fn source(root: &Path, folder: PathBuf, kind: Kind) -> Result<Option<Source>> {
    let cargo_path = folder.join("Cargo.toml");
    let cargo_toml = std::fs::read_to_string(&cargo_path).map_err(|error| {
        Failure::new(format!("reading {}: {error}", cargo_path.display())).remedy(
            "every folder here is a member of the workspace: write its Cargo.toml, or remove it",
        )
    })?;
    let package = manifest::string(&cargo_toml, "package", "name");
    let package = package
        .ok_or_else(|| Failure::new(format!("{} has no [package] name", cargo_path.display())))?;
    let path = folder.join("component.toml");
    if !path.is_file() && !cargo_toml.contains("cdylib") {
        return Ok(None);
    }
    let manifest = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(format!("reading {}: {error}", path.display())).remedy(
            "every component carries its manifest; `cargo xtask new service NAME` shows one",
        )
    })?;
    let name = manifest::string(&manifest, "", "name");
    let name = name.ok_or_else(|| {
        Failure::new(format!(
            "{} has no `name = \"…\"` at its top",
            path.display()
        ))
    })?;
    check_name(&name, &folder, kind)?;
    let migrations = migrations_json(&match kind {
        Kind::Services => root.join("migrations").join(file_name(&folder)),
        Kind::Guests => folder.join("migrations"),
    })?;
    Ok(Some(Source {
        folder,
        name,
        package,
        manifest,
        migrations,
    }))
}

/// `exprsn-timeline` lives in `components/timeline`, so that either name finds the other.
fn check_name(name: &str, folder: &Path, kind: Kind) -> Result<()> {
    let short = file_name(folder);
    let fits = name == format!("exprsn-{short}") || (kind == Kind::Guests && name == short);
    if fits {
        return Ok(());
    }
    let manifest = folder.join("component.toml");
    Err(Failure::new(format!(
        "{} names the component {name:?}, which does not fit its folder",
        manifest.display()
    ))
    .remedy(format!(
        "write name = \"exprsn-{short}\", or rename the folder"
    )))
}

fn choose<'a>(all: &'a [Source], names: &[String]) -> Result<Vec<&'a Source>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        let meant = |source: &&Source| source.name == *name || file_name(&source.folder) == *name;
        all.iter().find(meant).ok_or_else(|| {
            let known: Vec<String> = all.iter().map(|source| file_name(&source.folder)).collect();
            Failure::new(format!("there is no component {name:?}"))
                .remedy(format!("known are: {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// A compiled component, as cargo reported it.
struct Artifact {
    folder: PathBuf,
    file: PathBuf,
    /// Since the build began; nothing when it was already up to date.
    built_after: Option<Duration>,
}

fn compile(root: &Path, kind: Kind, sources: &[&Source]) -> Result<Vec<Artifact>> {
    let toolchain = toolchain::provision()?;
    say(&dim(&format!(
        "building for {} with {}",
        toolchain::TARGET,
        toolchain.description
    )));
    let mut command = toolchain.cargo_build();
    command
        .arg("--manifest-path")
        .arg(kind.workspace(root).join("Cargo.toml"));
    // Guests share the folder, so that the standard library is built once.
    command.env("CARGO_TARGET_DIR", target_dir(root).join("components"));
    for source in sources {
        command.args(["-p", &source.package]);
    }
    run_reading_artifacts(&mut command)
}

fn run_reading_artifacts(command: &mut Command) -> Result<Vec<Artifact>> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let started = Instant::now();
    let spawned = command.spawn();
    let mut child = spawned
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", line(command))))?;
    let messages = BufReader::new(child.stdout.take().expect("stdout was asked to be piped"));
    let artifacts = messages.lines().map_while(|line| line.ok());
    let artifacts = artifacts
        .filter_map(|message| artifact(&message, started.elapsed()))
        .collect();
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("waiting for cargo: {error}")))?;
    if status.success() {
        return Ok(artifacts);
    }
    Err(
        Failure::new("the components do not build; cargo's messages are above")
            .remedy(format!("to repeat it: {}", line(command))),
    )
}

/// Reads one of cargo's JSON messages, if it tells of a component.
fn artifact(message: &str, elapsed: Duration) -> Option<Artifact> {
    if !message.contains(r#""reason":"compiler-artifact""#)
        || !message.contains(r#""kind":["cdylib""#)
    {
        return None;
    }
    let between = |start: &str, end: &str| Some(message.split_once(start)?.1.split_once(end)?.0);
    let files = between(r#""filenames":["#, "]")?;
    let file = files.split('"').find(|name| name.ends_with(".wasm"))?;
    let folder = Path::new(between(r#""manifest_path":""#, "\"")?)
        .parent()?
        .to_path_buf();
    let fresh = message.contains(r#""fresh":true"#);
    Some(Artifact {
        folder,
        file: file.into(),
        built_after: (!fresh).then_some(elapsed),
    })
}

/// A component file that is ready to ship.
pub struct Finished {
    pub name: String,
    pub file: PathBuf,
    bytes: usize,
    pub changed: bool,
    built_after: Option<Duration>,
}

fn finish(root: &Path, kind: Kind, source: &Source, artifacts: &[Artifact]) -> Result<Finished> {
    let artifact = artifacts
        .iter()
        .find(|artifact| artifact.folder == source.folder)
        .ok_or_else(|| {
            Failure::new(format!(
                "cargo made no component of {}",
                source.folder.display()
            ))
            .remedy("its Cargo.toml needs [lib] with crate-type = [\"cdylib\", \"rlib\"]")
        })?;
    let component = std::fs::read(&artifact.file).about("reading", &artifact.file)?;
    // Guests of the host's tests ask for what they are refused.
    if kind == Kind::Services {
        check_grants(&source.name, &component, &source.manifest)?;
    }
    let contents = embed(&component, &source.manifest, &source.migrations)?;
    let folder = kind.output(root);
    std::fs::create_dir_all(&folder).about("creating", &folder)?;
    let file = folder.join(format!("{}.wasm", source.name));
    let changed = write_if_changed(&file, &contents)?;
    Ok(Finished {
        name: source.name.clone(),
        file,
        bytes: contents.len(),
        changed,
        built_after: artifact.built_after,
    })
}

/// Removes the files of components that are no longer there, so that no host loads them by mistake.
fn remove_stale(folder: &Path, all: &[Source]) -> Result<()> {
    for path in entries(folder)? {
        let name = file_name(&path);
        let Some(name) = name.strip_suffix(".wasm") else {
            continue;
        };
        if !all.iter().any(|source| source.name == name) {
            std::fs::remove_file(&path).about("removing", &path)?;
            say(&format!("removed {}: its source is gone", path.display()));
        }
    }
    Ok(())
}

fn report(finished: &[Finished], json: bool) {
    let width = finished.iter().map(|one| one.name.len()).max().unwrap_or(0);
    for one in finished {
        let built = one.built_after.map_or("up to date".to_string(), |after| {
            format!("built after {}", seconds(after))
        });
        let written = if one.changed { "" } else { ", file unchanged" };
        say(&format!(
            "  {} {:>7} kB  {built}{written}",
            bold(&format!("{:width$}", one.name)),
            one.bytes.div_ceil(1000)
        ));
    }
    if json {
        println!(
            "[{}]",
            finished
                .iter()
                .map(json_object)
                .collect::<Vec<_>>()
                .join(",")
        );
    }
}

fn json_object(one: &Finished) -> String {
    let built_ms = one
        .built_after
        .map_or("null".to_string(), |after| after.as_millis().to_string());
    format!(
        r#"{{"name":{},"file":{},"bytes":{},"changed":{},"built_after_ms":{built_ms}}}"#,
        json_string(&one.name),
        json_string(&one.file.to_string_lossy()),
        one.bytes,
        one.changed
    )
}

/// Compiles the host in release; the terminal shows cargo's own progress.
pub fn build_host(root: &Path) -> Result<()> {
    let mut command = crate::shell::cargo();
    command
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target_dir(root));
    run(command.args(["build", "--release", "-p", "exprsn"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_fits_the_folder() {
        let folder = Path::new("components/timeline");
        assert!(check_name("exprsn-timeline", folder, Kind::Services).is_ok());
        assert!(check_name("timeline", folder, Kind::Guests).is_ok());
        let failure = check_name("timeline", folder, Kind::Services)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("components/timeline/component.toml")
                && failure.contains("exprsn-timeline"),
            "{failure}"
        );
    }

    #[test]
    fn cargos_messages_are_read() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/r/components/hello/Cargo.toml","target":{"kind":["cdylib","rlib"]},"filenames":["/t/libhello.rlib","/t/hello.wasm"],"fresh":true}"#;
        let found = artifact(message, Duration::from_secs(1)).unwrap();
        assert_eq!(found.folder, Path::new("/r/components/hello"));
        assert_eq!(found.file, Path::new("/t/hello.wasm"));
        assert_eq!(found.built_after, None);
        assert!(artifact(r#"{"reason":"build-finished"}"#, Duration::ZERO).is_none());
    }

    #[test]
    fn either_name_chooses_a_component() {
        let source = |short: &str| Source {
            folder: Path::new("components").join(short),
            name: format!("exprsn-{short}"),
            package: format!("exprsn-{short}"),
            manifest: String::new(),
            migrations: String::new(),
        };
        let all = [source("auth"), source("timeline")];
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(choose(&all, &[]).unwrap().len(), 2);
        assert_eq!(
            choose(&all, &names(&["auth", "exprsn-timeline"]))
                .unwrap()
                .len(),
            2
        );
        let failure = choose(&all, &names(&["tmeline"])).unwrap_err().to_string();
        assert!(failure.contains("auth, timeline"), "{failure}");
    }
}
