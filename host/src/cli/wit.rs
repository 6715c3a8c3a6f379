//! `exprsn wit`: the interfaces of this host's version, for those who write extensions.

use super::output::{CliError, Result, Style, Table, print, print_json};
use crate::wit::{self, NAMESPACE, Sources, compatibility};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wit_parser::{Package, Resolve};

/// The file that `--out` writes where the folder has no world yet.
const WORLD_FILE: &str = "world.wit";

/// What that file says: a beginning, to be cut down.
const WORLD: &str = "/// What this component imports and exports. `exprsn wit --out` wrote it once and leaves it alone from now on.
///
/// Every import must be granted, and tools for JavaScript and Python import all that the world names: name what you use.
package local:extension;

/// For languages without async functions (JavaScript, Python): wasi:http 0.2 and the synchronous twins.
world extension-sync {
  import wasi:http/outgoing-handler@0.2.10;
  import exprsn:cache/store-sync@1.0.0;
  import exprsn:events/publisher-sync@1.0.0;
  import exprsn:queue/client-sync@1.0.0;
  import exprsn:sql/database-sync@1.0.0;
  import exprsn:telemetry/logging@1.0.0;
  export wasi:http/incoming-handler@0.2.10;
  // export exprsn:queue/worker-sync@1.0.0;
  // export exprsn:events/subscriber-sync@1.0.0;
}

/// For languages with async functions (Rust): unused imports drop out.
world extension {
  include exprsn:extension/extension@1.0.0;
  // export exprsn:queue/worker@1.0.0;
  // export exprsn:events/subscriber@1.0.0;
}
";

/// Prints the interfaces (WIT) of this host's version, or writes them where an extension is built.
///
/// Without a package, lists what there is. An interface that ends in `-sync` is the twin of another for languages without
/// async functions.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn wit
  exprsn wit exprsn:sql
  exprsn wit --out wit && componentize-py -d wit -w extension-sync componentize app -o app.wasm
  exprsn wit --check wit")]
pub struct WitArgs {
    /// Prints this package: `exprsn:sql`, or `sql`.
    #[arg(value_name = "PACKAGE", conflicts_with_all = ["out", "check"])]
    package: Option<String>,
    /// Writes all packages into DIR/deps, and a world to begin with where DIR has none.
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Says whether what was built against the packages in DIR (or DIR/deps) runs on this host. Exit code 1 where it does not.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl WitArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let sources = wit::sources();
        let present = wit::resolve(&sources).map_err(CliError::failed)?;
        match (&self.package, &self.out, &self.check) {
            (Some(package), _, _) => self.show(package, &sources, &present),
            (_, Some(folder), _) => self.write(folder, &sources),
            (_, _, Some(folder)) => self.check(folder, sources, &present),
            _ => self.list(&present),
        }
    }

    fn list(&self, resolve: &Resolve) -> Result {
        let packages: Vec<&Package> = wit::packages(resolve)
            .into_iter()
            .map(|id| &resolve.packages[id])
            .collect();
        if self.json {
            let packages: Vec<Value> = packages.into_iter().map(described).collect();
            return print_json(&packages);
        }
        let mut table = Table::new(&["PACKAGE", "INTERFACES", "WORLDS"], &[], Style::stdout());
        for package in packages {
            let names = |names: Vec<&String>| {
                let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
                names.join(" ")
            };
            table.row([
                package.name.to_string(),
                names(package.interfaces.keys().collect()),
                names(package.worlds.keys().collect()),
            ]);
        }
        print(&table.render());
        Ok(())
    }

    fn show(&self, wanted: &str, sources: &Sources, resolve: &Resolve) -> Result {
        let ids = wit::packages(resolve).into_iter();
        let mut packages = ids.map(|id| &resolve.packages[id]);
        let full = match wanted.split_once(':') {
            Some(_) => wanted.to_owned(),
            None => format!("{NAMESPACE}:{wanted}"),
        };
        let is_meant = |package: &&Package| {
            let name = package.name.to_string();
            name == full || name.split('@').next() == Some(full.as_str())
        };
        let package = packages.find(is_meant).ok_or_else(|| {
            CliError::failed(format!("this host has no package `{wanted}`"))
                .remedy("`exprsn wit` lists the packages")
        })?;
        let files = files_of(package, sources);
        if self.json {
            let mut described = described(package);
            described["files"] = json!(
                files
                    .iter()
                    .copied()
                    .collect::<std::collections::BTreeMap<_, _>>()
            );
            return print_json(&described);
        }
        let texts: Vec<&str> = files.into_iter().map(|(_, text)| text.trim_end()).collect();
        print(&texts.join("\n\n"));
        Ok(())
    }

    fn write(&self, folder: &Path, sources: &Sources) -> Result {
        let mut written = write_packages(folder, sources)?;
        let world = folder.join(WORLD_FILE);
        if !has_wit(folder) {
            write_file(&world, WORLD)?;
            written.push(world.clone());
        }
        if self.json {
            return print_json(&written);
        }
        let packages = folder.join("deps");
        print(&format!(
            "{} files of version {} in `{}`; your world is in `{}`",
            sources.len(),
            env!("CARGO_PKG_VERSION"),
            packages.display(),
            folder.display()
        ));
        Ok(())
    }

    fn check(&self, folder: &Path, mut sources: Sources, present: &Resolve) -> Result {
        // The standard's packages are taken from here: only ours are published by us.
        sources.retain(|path, _| !is_ours(path));
        let before = sources.len();
        for place in [folder.to_owned(), folder.join("deps")] {
            sources.extend(read_packages(&place)?);
        }
        if sources.len() == before {
            let error = format!("`{}` has no packages of ours", folder.display());
            return Err(CliError::failed(error).remedy("`exprsn wit --out DIR` writes them"));
        }
        let published = wit::resolve(&sources).map_err(CliError::failed)?;
        let (broken, items) = (
            compatibility::broken(&published, present),
            compatibility::count(&published),
        );
        if self.json {
            print_json(&json!({ "items": items, "broken": broken }))?;
        }
        if broken.is_empty() {
            if !self.json {
                print(&format!("all {items} items are as they were published"));
            }
            return Ok(());
        }
        Err(CliError::failed(format!(
            "{} of {items} items are not as they were published:\n  {}",
            broken.len(),
            broken.join("\n  ")
        ))
        .remedy(compatibility::REMEDY))
    }
}

/// Writes the packages where a project's world finds them, `DIR/deps`; answers the files.
pub(super) fn write_packages(folder: &Path, sources: &Sources) -> Result<Vec<PathBuf>> {
    let files = sources.iter().map(|(path, text)| {
        let path = folder.join("deps").join(path);
        write_file(&path, text)?;
        Ok(path)
    });
    files.collect()
}

fn described(package: &Package) -> Value {
    json!({
        "name": format!("{}:{}", package.name.namespace, package.name.name),
        "version": package.name.version.as_ref().map(ToString::to_string),
        "interfaces": package.interfaces.keys().collect::<Vec<_>>(),
        "worlds": package.worlds.keys().collect::<Vec<_>>(),
    })
}

/// The files whose package declaration names the package.
fn files_of<'a>(package: &Package, sources: &'a Sources) -> Vec<(&'a str, &'a str)> {
    let declaration = format!("package {};", package.name);
    let files = sources.iter();
    files
        .filter(|(_, text)| text.lines().any(|line| line == declaration))
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect()
}

/// Whether a path `<folder>/<file>` is of one of our packages.
fn is_ours(path: &str) -> bool {
    path.starts_with(&format!("{NAMESPACE}-"))
}

/// Our packages in the folders of `place`; none where there is no such place.
fn read_packages(place: &Path) -> Result<Sources> {
    let mut sources = Sources::new();
    for (folder, path) in entries(place)? {
        if !path.is_dir() || !is_ours(&folder) {
            continue;
        }
        for (file, path) in entries(&path)? {
            if file.ends_with(".wit") {
                let text =
                    fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))?;
                sources.insert(format!("{folder}/{file}"), text);
            }
        }
    }
    Ok(sources)
}

/// Names and paths of what is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(folder).map_err(|error| cannot("list", folder, &error))?;
    let paths = listed.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(paths
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect())
}

/// Whether a folder has a WIT file of its own already.
fn has_wit(folder: &Path) -> bool {
    entries(folder).is_ok_and(|entries| entries.iter().any(|(name, _)| name.ends_with(".wit")))
}

fn write_file(path: &Path, text: &str) -> Result {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    fs::write(path, text).map_err(|error| cannot("write", path, &error))
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot {verb} `{}`: {error}", path.display()))
}
