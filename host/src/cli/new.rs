//! `exprsn new extension`: a project that builds, from one of the examples.
//!
//! The templates are the examples themselves (`components/examples/<language>`), which a test builds, installs and calls:
//! what differs in a new project is the name and the port.

use super::output::{CliError, Result, Style, print};
use crate::name::ServiceName;
use clap::{Args, Subcommand, ValueEnum};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Writes new projects.
#[derive(Subcommand, Debug)]
pub enum NewCommand {
    Extension(ExtensionArgs),
}

/// Writes an extension component: a project that builds with its language's own tools, for any Exprsn platform.
///
/// It answers HTTP, has a database, and calls another service; what you do not need is quickly removed. Its README says how
/// it is built, signed and installed. Its first command, `exprsn wit --out wit`, writes this host's interfaces.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn new extension guestbook
  exprsn new extension link-list --language javascript --port 3040
  exprsn new extension reports --language python --into ~/src/reports")]
pub struct ExtensionArgs {
    /// Its name: lower-case letters, digits and inner hyphens.
    name: String,
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    language: Language,
    /// The port that it listens on.
    #[arg(long)]
    port: Option<u16>,
    /// The folder to make; one of its name by default.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// A language with an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    Javascript,
    Python,
}

/// A language's example.
struct Template {
    /// The example's own name, which is replaced wherever it stands.
    name: &'static str,
    port: u16,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! template {
    ($folder:literal, $name:literal, $port:literal, [$($file:literal),+ $(,)?]) => {
        Template {
            name: $name,
            port: $port,
            files: &[$((
                $file,
                include_str!(concat!("../../../components/examples/", $folder, "/", $file)),
            )),+],
        }
    };
}

const RUST: Template = template!(
    "rust",
    "guestbook",
    3031,
    [
        ".gitignore",
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "component.toml",
        "migrations/0001_init.sql",
        "src/http.rs",
        "src/lib.rs",
        "wit/world.wit",
    ]
);

const JAVASCRIPT: Template = template!(
    "javascript",
    "bookmarks",
    3032,
    [
        ".gitignore",
        "README.md",
        "build.mjs",
        "component.toml",
        "index.js",
        "migrations/0001_init.sql",
        "package.json",
        "wit/world.wit",
    ]
);

const PYTHON: Template = template!(
    "python",
    "statuspage",
    3033,
    [
        ".gitignore",
        "README.md",
        "app.py",
        "component.toml",
        "migrations/0001_init.sql",
        "requirements.txt",
        "wit/world.wit",
    ]
);

impl Language {
    fn template(self) -> &'static Template {
        match self {
            Self::Rust => &RUST,
            Self::Javascript => &JAVASCRIPT,
            Self::Python => &PYTHON,
        }
    }
}

impl NewCommand {
    /// Runs the command.
    pub fn run(self) -> Result {
        match self {
            Self::Extension(command) => command.run(),
        }
    }
}

impl ExtensionArgs {
    fn run(self) -> Result {
        let name = ServiceName::parse(&self.name)
            .map_err(|error| CliError::failed(error).remedy("a name like: guestbook, link-list"))?;
        let folder = self.into.unwrap_or_else(|| PathBuf::from(name.as_str()));
        if folder.exists() {
            return Err(
                CliError::failed(format!("`{}` exists already", folder.display()))
                    .remedy("choose another name, or another folder with --into"),
            );
        }
        for (file, text) in files(self.language, &name, self.port) {
            write(&folder.join(file), &text)?;
        }
        let style = Style::stdout();
        print(&format!(
            "{} in `{}`. Its README.md says how it is built, shipped and installed; `exprsn dev {}` does all of that on every save.",
            style.bold(name.as_str()),
            folder.display(),
            folder.display()
        ));
        Ok(())
    }
}

/// The project's files: those of the example with another name, and another port where one is given.
fn files(
    language: Language,
    name: &ServiceName,
    port: Option<u16>,
) -> impl Iterator<Item = (&'static str, String)> {
    let template = language.template();
    let (old, new) = (
        template.port.to_string(),
        port.unwrap_or(template.port).to_string(),
    );
    let name = name.as_str().to_owned();
    template.files.iter().map(move |(file, text)| {
        let mut text = text.replace(template.name, &name);
        if matches!(*file, "README.md" | "component.toml") {
            text = text.replace(&old, &new);
        }
        (*file, text)
    })
}

fn write(path: &Path, text: &str) -> Result {
    let written = match path.parent() {
        Some(folder) => fs::create_dir_all(folder).and_then(|()| fs::write(path, text)),
        None => fs::write(path, text),
    };
    written.map_err(|error| {
        CliError::failed(format!("cannot write `{}`: {error}", path.display()))
            .remedy("choose a folder that you can write to with --into")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ALL: [(Language, &str); 3] = [
        (Language::Rust, "rust"),
        (Language::Javascript, "javascript"),
        (Language::Python, "python"),
    ];

    /// What git keeps of an example: its own .gitignore names the rest.
    fn checked_in(folder: &Path) -> BTreeMap<String, String> {
        let listed = std::process::Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(folder)
            .output()
            .expect("git runs");
        let names = String::from_utf8(listed.stdout).expect("names");
        let read = |name: &str| {
            fs::read_to_string(folder.join(name))
                .ok()
                .map(|text| (name.to_owned(), text))
        };
        names.lines().filter_map(read).collect()
    }

    #[test]
    fn a_project_of_the_examples_name_is_the_example() {
        for (language, folder) in ALL {
            let example = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../components/examples")
                .join(folder);
            let name = ServiceName::parse(language.template().name).unwrap();
            let made: BTreeMap<_, _> = files(language, &name, None)
                .map(|(file, text)| (file.to_owned(), text))
                .collect();
            let expected = checked_in(&example);
            assert_eq!(
                made.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "{folder}: list its files in cli/new.rs"
            );
            assert!(made == expected, "{folder}");
        }
    }

    #[test]
    fn a_new_name_and_port_stand_wherever_the_old_ones_did() {
        let name = ServiceName::parse("link-list").unwrap();
        for (language, folder) in ALL {
            let template = language.template();
            for (file, text) in files(language, &name, Some(4040)) {
                assert!(!text.contains(template.name), "{folder}/{file}");
                if file == "component.toml" {
                    let manifest = crate::manifest::Manifest::parse(&text).unwrap();
                    assert_eq!((manifest.name.as_str(), manifest.port), ("link-list", 4040));
                }
            }
        }
    }
}
