//! `cargo xtask new service`.

use super::{Edit, changed, check_name, identifier, insert_sorted, title, write_all};
use crate::manifest;
use crate::shell::{Failure, Result, bold, entries, say};
use std::path::{Path, PathBuf};

/// Ports below belong to the services of the specification.
const FIRST_FREE_PORT: u64 = 3021;

/// Writes component, migration, test and configuration of a service that works at once.
pub fn new_service(root: &Path, name: &str) -> Result<()> {
    check_name(name)?;
    let port = next_port(&used_ports(root)?);
    let edits = edits(root, name, port)?;
    write_all(root, &edits)?;
    say(&format!(
        "{} listens on port {port}. Next:\n  cargo xtask build-components {name}\n  cargo xtask test {}\n  cargo xtask up --services ca,setup,auth,{name}",
        bold(&format!("exprsn-{name}")),
        identifier(name)
    ));
    Ok(())
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

fn edits(root: &Path, name: &str, port: u64) -> Result<Vec<Edit>> {
    let component = root.join("components").join(name);
    let tests = root.join("host/tests/all");
    let template = |path: PathBuf, text: &str| Edit::new(path, fill(text, name, port));
    let platform = fill(
        include_str!("../../templates/service/platform.toml.template"),
        name,
        port,
    );
    Ok(vec![
        template(
            component.join("Cargo.toml"),
            include_str!("../../templates/service/Cargo.toml.template"),
        ),
        template(
            component.join("component.toml"),
            include_str!("../../templates/service/component.toml.template"),
        ),
        template(
            component.join("src/lib.rs"),
            include_str!("../../templates/service/lib.rs.template"),
        ),
        template(
            component.join("src/domain.rs"),
            include_str!("../../templates/service/domain.rs.template"),
        ),
        template(
            root.join("migrations").join(name).join("0001_init.sql"),
            include_str!("../../templates/service/0001_init.sql.template"),
        ),
        template(
            tests.join(format!("{}.rs", identifier(name))),
            include_str!("../../templates/service/test.rs.template"),
        ),
        changed(tests.join("main.rs"), |text| {
            Ok(with_module(text, &identifier(name)))
        })?,
        changed(root.join("platform.toml"), |text| {
            with_service(text, name, &platform)
        })?,
    ])
}

fn fill(template: &str, name: &str, port: u64) -> String {
    template
        .replace("{{name}}", name)
        .replace("{{title}}", &title(name))
        .replace("{{port}}", &port.to_string())
}

/// Adds `mod <module>;` among the others, in alphabetical order.
fn with_module(main: &str, module: &str) -> String {
    let line = format!("mod {module};");
    let is_module = |text: &str| text.starts_with("mod ") && text.ends_with(';');
    insert_sorted(main, &line, is_module)
        .unwrap_or_else(|| format!("{}\n\n{line}\n", main.trim_end()))
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
