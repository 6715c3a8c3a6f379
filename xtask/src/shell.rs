//! Running other programs, and talking to the person who waits for them.
//!
//! **Invariant:** everything said goes to stderr, so that stdout belongs to `--json` and to the programs started.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What went wrong, and what a person can do about it.
#[derive(Debug)]
pub struct Failure {
    cause: String,
    remedy: Option<String>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(cause: impl Into<String>) -> Self {
        Failure {
            cause: cause.into(),
            remedy: None,
        }
    }

    /// Adds what to do next; it is printed below the cause.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        match &self.remedy {
            Some(remedy) => write!(
                f,
                "\n{} {}",
                bold("what to do:"),
                remedy.replace('\n', "\n  ")
            ),
            None => Ok(()),
        }
    }
}

/// Gives an I/O error the name of the file it is about.
pub trait About<T> {
    fn about(self, doing: &str, path: &Path) -> Result<T>;
}

impl<T> About<T> for std::io::Result<T> {
    fn about(self, doing: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{doing} {}: {error}", path.display())))
    }
}

/// Variables that cargo sets for this program and that would mislead, or needlessly rebuild, what it starts.
const CARGO_PRIVATE: [&str; 3] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_"];

/// A command with the environment that the person's own shell had, not the one cargo gave to xtask.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text == "LD_LIBRARY_PATH"
            || CARGO_PRIVATE
                .iter()
                .any(|prefix| name_text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end with the terminal passed through; fails with the command line when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{status} from: {}", line(command))))
}

/// Runs silently and returns what it printed; its stderr becomes part of the failure.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!(
        "{} from: {}\n{}",
        output.status,
        line(command),
        said.trim_end()
    )))
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!(
        "cannot start {}: {error}",
        command.get_program().to_string_lossy()
    ))
}

/// The command as it could be typed, with the variables set for it.
pub fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quoted(&value?.to_string_lossy())
        ))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| quoted(&word.to_string_lossy()));
    variables
        .filter(|text| !text.starts_with("PATH="))
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Is there a program of this name on PATH?
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The repository's root: the nearest folder upwards that holds `xtask/Cargo.toml`.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().about("finding", Path::new("the current folder"))?;
    let root = here
        .ancestors()
        .find(|folder| folder.join("xtask/Cargo.toml").is_file());
    root.map(Path::to_path_buf).ok_or_else(|| {
        Failure::new(format!(
            "{} is not inside the Exprsn repository",
            here.display()
        ))
    })
}

/// Where cargo's outputs go: `CARGO_TARGET_DIR`, in CI a folder that outlives the clone, else `<root>/target`.
pub fn target_dir(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|text| !text.is_empty()) {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None if std::env::var_os("CI").is_some_and(|text| !text.is_empty()) => {
            cache_dir().join("target")
        }
        None => root.join("target"),
    }
}

/// The folder for what is worth keeping between checkouts.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|text| !text.is_empty())
        .map(PathBuf::from);
    let home =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    base.unwrap_or_else(home).join("exprsn")
}

/// Replaces a file in one step, so that no reader ever sees half of it; leaves an equal file untouched.
///
/// Returns whether the file changed.
pub fn write_if_changed(path: &Path, contents: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(false);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, contents).about("writing", &temporary)?;
    std::fs::rename(&temporary, path).about("replacing", path)?;
    Ok(true)
}

/// The entries of a folder, sorted by name; an absent folder has none.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let found = std::fs::read_dir(folder).about("listing", folder)?;
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// The last part of a path, as text.
pub fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Numbered steps with their elapsed times, and a table of them at the end.
pub struct Steps {
    total: usize,
    done: Vec<(String, Duration)>,
    started: Instant,
}

impl Steps {
    pub fn new(total: usize) -> Self {
        Steps {
            total,
            done: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Runs one step; a failure says which step it was.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.done.len() + 1;
        say(&format!(
            "{} {}",
            bold(&format!("[{number}/{}]", self.total)),
            bold(name)
        ));
        let started = Instant::now();
        let value = work().map_err(|failure| Failure {
            cause: format!("step {number} of {}, {name}: {}", self.total, failure.cause),
            remedy: failure.remedy,
        })?;
        let elapsed = started.elapsed();
        say(&dim(&format!(
            "[{number}/{}] {name}: {}",
            self.total,
            seconds(elapsed)
        )));
        self.done.push((name.to_string(), elapsed));
        Ok(value)
    }

    /// Prints what every step took.
    pub fn summary(&self) {
        let width = self
            .done
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        for (name, elapsed) in &self.done {
            say(&format!(
                "  {} {name:width$} {:>9}",
                green("ok"),
                seconds(*elapsed)
            ));
        }
        say(&bold(&format!(
            "     {:width$} {:>9}",
            "total",
            seconds(self.started.elapsed())
        )));
    }
}

/// A duration as a person reads it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// One line to stderr.
pub fn say(text: &str) {
    eprintln!("{text}");
}

pub fn bold(text: &str) -> String {
    coloured("1", text)
}

pub fn dim(text: &str) -> String {
    coloured("2", text)
}

pub fn green(text: &str) -> String {
    coloured("32", text)
}

pub fn red(text: &str) -> String {
    coloured("31;1", text)
}

fn coloured(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let mut command = Command::new("apt-get");
        command.args(["install", "it's here", ""]).env("A", "b c");
        assert_eq!(line(&command), r"A='b c' apt-get install 'it'\''s here' ''");
    }

    #[test]
    fn writing_the_same_contents_leaves_the_file_alone() {
        let path = std::env::temp_dir().join(format!("exprsn-xtask-{}", std::process::id()));
        assert!(write_if_changed(&path, b"one").unwrap());
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        std::fs::remove_file(&path).unwrap();
    }
}
