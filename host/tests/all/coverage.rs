//! A list exists once; what must follow from it is compared here, and each message says which file to add.

use exprsn::{capability, component::ComponentFile, config::Config, manifest::Manifest};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folders(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect()
}

fn services() -> BTreeSet<String> {
    let mut services = folders("components");
    services.retain(|name| !matches!(name.as_str(), "sdk" | "examples" | "target"));
    services
}

fn test_file_exists(name: &str) -> bool {
    let name = name.replace('-', "_");
    let main = fs::read_to_string(root().join("host/tests/all/main.rs")).expect("main.rs");
    root().join(format!("host/tests/all/{name}.rs")).is_file()
        && main.contains(&format!("mod {name};"))
}

#[test]
fn each_capability_is_a_package_a_module_and_a_test_file() {
    let packages: BTreeSet<String> = folders("wit/deps")
        .iter()
        .filter_map(|name| name.strip_prefix("exprsn-").map(str::to_owned))
        .collect();
    for package in &packages {
        assert!(
            capability::NAMES.contains(&package.as_str()),
            "wit/deps/exprsn-{package} has no capability: add `{package}` to capabilities! in host/src/capability.rs"
        );
    }
    for name in capability::NAMES {
        let standard = matches!(*name, "config" | "http");
        assert!(
            standard || packages.contains(*name),
            "capability `{name}` has no package: add wit/deps/exprsn-{name}/"
        );
        let module = root().join(format!("host/src/capability/{name}/mod.rs"));
        assert!(
            module.is_file(),
            "capability `{name}` has no module: add host/src/capability/{name}/mod.rs"
        );
        assert!(
            test_file_exists(name),
            "capability `{name}` has no test: add host/tests/all/{name}.rs and its mod line"
        );
    }
}

#[test]
fn each_service_is_configured_migrated_and_tested() {
    let config = fs::read_to_string(root().join("platform.toml")).expect("platform.toml");
    let config = Config::parse(&config).expect("platform.toml is valid");
    let configured: BTreeSet<String> = config
        .service
        .keys()
        .map(|name| name.short().to_owned())
        .collect();
    assert_eq!(
        configured,
        services(),
        "platform.toml's [service.…] and the folders of components/ differ"
    );
    for service in services() {
        assert!(
            test_file_exists(&service),
            "service `{service}` has no test: add host/tests/all/{service}.rs and its mod line"
        );
        let migrations = root().join(format!("migrations/{service}"));
        let manifest =
            fs::read_to_string(root().join(format!("components/{service}/component.toml")))
                .expect("a manifest");
        let manifest =
            Manifest::parse(&manifest).unwrap_or_else(|error| panic!("{service}: {error}"));
        assert_eq!(
            manifest.grants.sql.is_some(),
            migrations.is_dir(),
            "service `{service}`: a database and a folder migrations/{service} go together"
        );
    }
}

#[test]
fn each_component_imports_what_it_is_granted_neither_more_nor_less() {
    let config = fs::read_to_string(root().join("platform.toml")).expect("platform.toml");
    let config = Config::parse(&config).expect("platform.toml is valid");
    for (name, service) in &config.service {
        let file =
            ComponentFile::read(&crate::harness::built("components").join(&service.component))
                .unwrap_or_else(|error| panic!("{error:?}"));
        file.check_requests()
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let asked: BTreeSet<&str> = file.manifest.grants.names().into_iter().collect();
        let granted: BTreeSet<&str> = service.grants.keys().map(String::as_str).collect();
        assert_eq!(
            asked, granted,
            "[service.{name}] grants in platform.toml and [grants.…] in its component.toml differ"
        );
    }
}

#[test]
fn platform_toml_documents_every_key_with_its_default() {
    let text = fs::read_to_string(root().join("platform.toml")).expect("platform.toml");
    let defaults = [
        toml::Table::try_from(exprsn::config::PlatformConfig::default()).expect("serialises"),
        toml::Table::try_from(exprsn::config::Limits::default()).expect("serialises"),
        toml::Table::try_from(exprsn::tls::Config::default()).expect("serialises"),
        toml::Table::try_from(exprsn::cluster::Config::default()).expect("serialises"),
        toml::Table::try_from(exprsn::mesh::Settings::default()).expect("serialises"),
        toml::Table::try_from(exprsn_telemetry::Config::default()).expect("serialises"),
    ];
    for (key, value) in defaults.iter().flatten() {
        let line = format!("# {key} = {value}");
        assert!(
            text.contains(&line),
            "platform.toml does not document `{line}`"
        );
    }
}

#[test]
fn every_guest_is_used_by_a_test() {
    let tests: String = fs::read_dir(root().join("host/tests/all"))
        .expect("tests")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default())
        .collect();
    for guest in folders("host/tests/guests")
        .iter()
        .filter(|guest| *guest != "target")
    {
        assert!(
            tests.contains(&format!("\"{guest}\"")),
            "guest `{guest}` is used by no test in host/tests/all"
        );
    }
}

/// The texts of all test files.
fn tests() -> String {
    let mut folders = vec![root().join("host/tests/all")];
    let mut texts = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                texts += &fs::read_to_string(&path).expect("a test file");
            }
        }
    }
    texts
}

#[test]
fn the_table_of_limits_names_tests_that_are_there() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let (_, table) = readme
        .split_once("| limit |")
        .expect("README.md has the table of limits");
    let (table, _) = table.split_once("\n\n").expect("the table ends");
    let tests = tests();
    let named = |span: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:…".contains(c);
        span.chars().all(plain) && (span.contains("::") || span.contains('…'))
    };
    let spans: Vec<&str> = table.split('`').skip(1).step_by(2).filter(named).collect();
    assert!(spans.len() > 30, "the table of limits names its tests");
    for span in spans {
        let name = span
            .trim_matches('…')
            .rsplit("::")
            .next()
            .unwrap_or_default();
        let there = match (name, span.split("::").next()) {
            ("", Some(module)) => test_file_exists(module),
            (name, _) => tests.contains(&format!("fn {name}")),
        };
        assert!(
            there,
            "README.md names the test `{span}`, which is not there"
        );
    }
}
