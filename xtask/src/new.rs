//! `cargo xtask new`: writes all places that a new service has, so that none is forgotten.
//!
//! **Invariant:** everything is checked before the first file is written; no existing file is overwritten.

use crate::manifest;
use crate::shell::{About, Failure, Result, bold, entries, say};
use std::path::{Path, PathBuf};

/// Ports below belong to the services of the specification.
const FIRST_FREE_PORT: u64 = 3021;
/// Names of folders beside the services that are no services.
const RESERVED: [&str; 4] = ["sdk", "examples", "target", "main"];
const NAME_CHARACTERS_MAX: usize = 40;

/// Dispatches on what is to be made.
pub fn new(root: &Path, arguments: &[String]) -> Result<()> {
    match arguments {
        [what, name] if what == "service" => new_service(root, name),
        _ => Err(Failure::new("new needs what to make, and its name")
            .remedy("cargo xtask new service NAME")),
    }
}

fn new_service(root: &Path, name: &str) -> Result<()> {
    check_name(name)?;
    let port = next_port(&used_ports(root)?);
    let edits = edits(root, name, port)?;
    if let Some(taken) = edits.iter().find(|edit| edit.is_new && edit.path.exists()) {
        return Err(
            Failure::new(format!("{} exists already", taken.path.display()))
                .remedy("choose another name"),
        );
    }
    for edit in &edits {
        let folder = edit.path.parent().expect("every path is below the root");
        std::fs::create_dir_all(folder).about("creating", folder)?;
        std::fs::write(&edit.path, &edit.contents).about("writing", &edit.path)?;
        let verb = if edit.is_new { "wrote " } else { "edited" };
        say(&format!(
            "  {verb} {}",
            edit.path.strip_prefix(root).unwrap_or(&edit.path).display()
        ));
    }
    say(&format!(
        "{} listens on port {port}. Next:\n  cargo xtask build-components {name}\n  cargo xtask test {}\n  cargo xtask up --services ca,setup,auth,{name}",
        bold(&format!("exprsn-{name}")),
        identifier(name)
    ));
    Ok(())
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

/// The ports that manifests claim.
fn used_ports(root: &Path) -> Result<Vec<u64>> {
    let mut ports = Vec::new();
    for folder in entries(&root.join("components"))? {
        if let Ok(text) = std::fs::read_to_string(folder.join("component.toml")) {
            ports.extend(manifest::integer(&text, "", "port"));
        }
    }
    Ok(ports)
}

fn next_port(used: &[u64]) -> u64 {
    (FIRST_FREE_PORT..)
        .find(|port| !used.contains(port))
        .expect("there are more numbers than services")
}

/// A file to write, new or changed.
struct Edit {
    path: PathBuf,
    contents: String,
    is_new: bool,
}

fn edits(root: &Path, name: &str, port: u64) -> Result<Vec<Edit>> {
    let component = root.join("components").join(name);
    let tests = root.join("host/tests/all");
    let template = |path: PathBuf, text: &str| Edit {
        path,
        contents: fill(text, name, port),
        is_new: true,
    };
    let platform = fill(
        include_str!("../templates/service/platform.toml.template"),
        name,
        port,
    );
    Ok(vec![
        template(
            component.join("Cargo.toml"),
            include_str!("../templates/service/Cargo.toml.template"),
        ),
        template(
            component.join("component.toml"),
            include_str!("../templates/service/component.toml.template"),
        ),
        template(
            component.join("src/lib.rs"),
            include_str!("../templates/service/lib.rs.template"),
        ),
        template(
            component.join("src/domain.rs"),
            include_str!("../templates/service/domain.rs.template"),
        ),
        template(
            root.join("migrations").join(name).join("0001_init.sql"),
            include_str!("../templates/service/0001_init.sql.template"),
        ),
        template(
            tests.join(format!("{}.rs", identifier(name))),
            include_str!("../templates/service/test.rs.template"),
        ),
        changed(tests.join("main.rs"), |text| {
            Ok(with_module(text, &identifier(name)))
        })?,
        changed(root.join("platform.toml"), |text| {
            with_service(text, name, &platform)
        })?,
    ])
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

fn fill(template: &str, name: &str, port: u64) -> String {
    template
        .replace("{{name}}", name)
        .replace("{{title}}", &title(name))
        .replace("{{port}}", &port.to_string())
        .replace(
            "{{offset}}",
            &(20_000 + (port - FIRST_FREE_PORT) % 100 * 100).to_string(),
        )
}

/// Adds `mod <module>;` among the others, in alphabetical order.
fn with_module(main: &str, module: &str) -> String {
    let line = format!("mod {module};");
    let mut lines: Vec<&str> = main.lines().collect();
    let is_module = |text: &&str| text.starts_with("mod ") && text.ends_with(';');
    let after = lines
        .iter()
        .rposition(|text| is_module(text) && **text < *line);
    let before = lines.iter().position(is_module).unwrap_or(lines.len());
    lines.insert(after.map_or(before, |index| index + 1), &line);
    lines.join("\n") + "\n"
}

/// Adds the operator's section at the end.
fn with_service(platform: &str, name: &str, section: &str) -> Result<String> {
    let table = format!("service.exprsn-{name}");
    if manifest::tables(platform).any(|header| header == table) {
        return Err(Failure::new(format!("platform.toml has [{table}] already"))
            .remedy("choose another name"));
    }
    Ok(format!("{}\n{section}", platform.trim_end()))
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

    #[test]
    fn the_next_port_is_the_first_free_one() {
        assert_eq!(next_port(&[3000, 5001]), 3021);
        assert_eq!(next_port(&[3021, 3023]), 3022);
    }

    #[test]
    fn modules_stay_sorted() {
        let main = "//! All.\n\nmod auth;\nmod timeline;\n\nfn x() {}\n";
        assert_eq!(
            with_module(main, "pulse"),
            "//! All.\n\nmod auth;\nmod pulse;\nmod timeline;\n\nfn x() {}\n"
        );
        assert_eq!(
            with_module(main, "a"),
            "//! All.\n\nmod a;\nmod auth;\nmod timeline;\n\nfn x() {}\n"
        );
        assert_eq!(
            with_module(main, "z"),
            "//! All.\n\nmod auth;\nmod timeline;\nmod z;\n\nfn x() {}\n"
        );
    }

    /// A repository with just what a new service touches.
    fn repository(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("exprsn-new-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("components/auth")).unwrap();
        std::fs::create_dir_all(root.join("host/tests/all")).unwrap();
        std::fs::write(root.join("components/auth/component.toml"), "port = 3021\n").unwrap();
        std::fs::write(root.join("host/tests/all/main.rs"), "//! All.\nmod auth;\n").unwrap();
        std::fs::write(root.join("platform.toml"), "[platform]\n").unwrap();
        root
    }

    #[test]
    fn a_service_has_all_its_places_and_no_placeholder() {
        let root = repository("whole");
        new_service(&root, "link-preview").unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(
            manifest::integer(&read("components/link-preview/component.toml"), "", "port"),
            Some(3022)
        );
        assert!(read("components/link-preview/src/lib.rs").contains("Exprsn Link preview"));
        assert!(read("host/tests/all/main.rs").contains("mod auth;\nmod link_preview;\n"));
        assert!(read("platform.toml").starts_with("[platform]\n\n[service.exprsn-link-preview]\n"));
        let files = [
            "components/link-preview/Cargo.toml",
            "migrations/link-preview/0001_init.sql",
            "host/tests/all/link_preview.rs",
        ];
        for file in files {
            assert!(!read(file).contains("{{"), "{file} has a placeholder left");
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn nothing_is_written_over_a_taken_name() {
        let root = repository("taken");
        std::fs::create_dir_all(root.join("migrations/auth")).unwrap();
        std::fs::write(root.join("migrations/auth/0001_init.sql"), "mine").unwrap();
        assert!(
            new_service(&root, "auth")
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
        assert!(!root.join("components/auth/Cargo.toml").exists());
        std::fs::remove_dir_all(root).unwrap();
    }
}
