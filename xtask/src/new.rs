//! `cargo xtask new`: writes all places that a new service or capability has, so that none is forgotten.
//!
//! **Invariant:** everything is checked before the first file is written; no existing file is overwritten.

mod capability;
mod service;

use crate::shell::{About, Failure, Result, command, output, say};
use std::path::{Path, PathBuf};

/// Names of folders beside the services that are no services, and of files beside their tests.
const RESERVED: [&str; 4] = ["sdk", "examples", "target", "main"];
const NAME_CHARACTERS_MAX: usize = 40;

/// Dispatches on what is to be made.
pub fn new(root: &Path, arguments: &[String]) -> Result<()> {
    match arguments {
        [what, name] if what == "service" => service::new_service(root, name),
        [what, name] if what == "capability" => capability::new_capability(root, name),
        _ => Err(Failure::new("new needs what to make, and its name")
            .remedy("cargo xtask new service NAME, or: cargo xtask new capability NAME")),
    }
}

fn check_name(name: &str) -> Result<()> {
    let fault = if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "does not start with a letter a-z"
    } else if !name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        "has other characters than a-z, 0-9 and -"
    } else if name.ends_with('-') || name.contains("--") {
        "has a - that joins nothing"
    } else if name.len() > NAME_CHARACTERS_MAX {
        "is longer than 40 characters"
    } else if name.starts_with("exprsn-") {
        "is given without `exprsn-`, which is added"
    } else if RESERVED.contains(&name) {
        "is taken by a folder that is no service"
    } else {
        return Ok(());
    };
    Err(Failure::new(format!("the name {name:?} {fault}"))
        .remedy("a name like: bookmarks, link-preview"))
}

/// A file to write, new or changed.
struct Edit {
    path: PathBuf,
    contents: String,
    is_new: bool,
}

impl Edit {
    fn new(path: PathBuf, contents: String) -> Self {
        Edit {
            path,
            contents,
            is_new: true,
        }
    }
}

/// Writes all of them, or none when one would overwrite something.
fn write_all(root: &Path, edits: &[Edit]) -> Result<()> {
    if let Some(taken) = edits.iter().find(|edit| edit.is_new && edit.path.exists()) {
        return Err(
            Failure::new(format!("{} exists already", taken.path.display()))
                .remedy("choose another name"),
        );
    }
    for edit in edits {
        let folder = edit.path.parent().expect("every path is below the root");
        std::fs::create_dir_all(folder).about("creating", folder)?;
        std::fs::write(&edit.path, &edit.contents).about("writing", &edit.path)?;
        let verb = if edit.is_new { "wrote " } else { "edited" };
        say(&format!(
            "  {verb} {}",
            edit.path.strip_prefix(root).unwrap_or(&edit.path).display()
        ));
    }
    format(edits)
}

/// Where lines break depends on the name, so the formatter has the last word.
fn format(edits: &[Edit]) -> Result<()> {
    let is_rust = |edit: &&Edit| {
        edit.is_new
            && edit
                .path
                .extension()
                .is_some_and(|extension| extension == "rs")
    };
    let files = edits.iter().filter(is_rust).map(|edit| &edit.path);
    output(command("rustfmt").args(["--edition", "2024"]).args(files)).map(drop)
}

fn changed(path: PathBuf, change: impl FnOnce(&str) -> Result<String>) -> Result<Edit> {
    let text = std::fs::read_to_string(&path).about("reading", &path)?;
    let contents = change(&text)?;
    Ok(Edit {
        path,
        contents,
        is_new: false,
    })
}

/// Rust's names have no `-`.
fn identifier(name: &str) -> String {
    name.replace('-', "_")
}

/// `link-preview` as a heading: `Link preview`.
fn title(name: &str) -> String {
    let words = name.replace('-', " ");
    let (first, rest) = words.split_at(1);
    first.to_uppercase() + rest
}

/// Inserts `line` among the lines that `is_like_it`, in alphabetical order. Nothing when there are none.
fn insert_sorted(text: &str, line: &str, is_like_it: impl Fn(&str) -> bool) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|text| is_like_it(text))?;
    let after = lines
        .iter()
        .rposition(|text| is_like_it(text) && *text < line);
    lines.insert(after.map_or(first, |index| index + 1), line);
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["bookmarks", "link-preview", "s3"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "3s",
            "Book",
            "a_b",
            "a-",
            "a--b",
            "sdk",
            "exprsn-a",
            "a b",
            &"a".repeat(41),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
