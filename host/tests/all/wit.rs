//! `exprsn wit`, and the promise that components built against published interfaces keep running.

use crate::harness::EXPRSN;
use exprsn::wit::{self, Sources, compatibility};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(arguments: &[&str]) -> Output {
    let output = Command::new(EXPRSN).arg("wit").args(arguments).output();
    output.expect("it runs")
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The published packages of one version, with the standard's, which are not ours to publish.
fn published(version: &Path) -> Sources {
    let mut sources = wit::sources();
    sources.retain(|path, _| !path.starts_with("exprsn-"));
    for folder in fs::read_dir(version).expect("a version") {
        let folder = folder.expect("an entry").path();
        for file in fs::read_dir(&folder).expect("a package") {
            let file = file.expect("an entry").path();
            let path = file.strip_prefix(version).expect("below it");
            let text = fs::read_to_string(&file).expect("a file");
            sources.insert(path.display().to_string(), text);
        }
    }
    sources
}

#[test]
fn nothing_that_was_published_is_removed_or_changed() {
    let present = wit::resolve(&wit::sources()).unwrap_or_else(|error| panic!("{error}"));
    let mut versions = 0;
    for version in fs::read_dir(root().join("wit/published")).expect("wit/published") {
        let version = version.expect("an entry").path();
        let published = wit::resolve(&published(&version));
        let published = published.unwrap_or_else(|error| panic!("{}: {error}", version.display()));
        assert!(compatibility::count(&published) > 100, "{version:?}");
        let broken = compatibility::broken(&published, &present);
        assert!(
            broken.is_empty(),
            "components built against wit/published/{} would not run any more:\n  {}\n{}",
            version.file_name().expect("a name").display(),
            broken.join("\n  "),
            compatibility::REMEDY
        );
        versions += 1;
    }
    assert!(versions > 0, "run `cargo xtask wit-publish`");
}

#[test]
fn the_list_is_of_packages_interfaces_and_worlds() {
    let table = printed(&[]);
    for text in ["exprsn:sql@1.0.0", "database-sync", "extension-sync"] {
        assert!(table.contains(text), "{table}");
    }
    let packages: Value = serde_json::from_str(&printed(&["--json"])).expect("JSON");
    let names: Vec<_> = packages
        .as_array()
        .expect("a list")
        .iter()
        .map(|package| package["name"].as_str().expect("a name"))
        .collect();
    for name in exprsn::capability::NAMES {
        let standard = matches!(*name, "config" | "http");
        assert!(
            standard || names.contains(&format!("exprsn:{name}").as_str()),
            "{name}: {names:?}"
        );
    }
}

#[test]
fn a_package_is_printed_as_it_is_written() {
    let text = printed(&["exprsn:queue"]);
    assert!(
        text.contains("interface worker {") && text.contains("interface worker-sync {"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&printed(&["queue", "--json"])).expect("JSON");
    assert_eq!(
        (&json["name"], &json["version"]),
        (&"exprsn:queue".into(), &"1.0.0".into())
    );
    assert!(
        json["files"]["exprsn-queue/queue.wit"]
            .as_str()
            .is_some_and(|text| text.contains("package exprsn:queue@1.0.0;"))
    );
    let output = run(&["nonsense"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("no package `nonsense`"),
        "{error}"
    );
}

#[test]
fn a_folder_is_written_that_tools_take_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let wit = folder.path().join("wit");
    let wit_path = wit.to_str().expect("a path");
    printed(&["--out", wit_path]);
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve
        .push_dir(&wit)
        .unwrap_or_else(|error| panic!("{error:?}"));
    for (world, export) in [
        ("extension", "wasi:http/handler@0.3.0"),
        ("extension-sync", "wasi:http/incoming-handler@0.2.10"),
    ] {
        let world = resolve
            .select_world(&[package], Some(world))
            .expect("a world");
        let exports: Vec<_> = resolve.worlds[world]
            .exports
            .keys()
            .map(|key| resolve.name_world_key(key))
            .collect();
        assert_eq!(exports, [export]);
        let imports = resolve.worlds[world].imports.values();
        let asynchronous = imports
            .filter_map(|item| match item {
                wit_parser::WorldItem::Interface { id, .. } => Some(*id),
                _ => None,
            })
            .any(|id| {
                resolve.interfaces[id]
                    .functions
                    .values()
                    .any(|function| function.kind.is_async())
            });
        assert_eq!(asynchronous, export.contains("0.3.0"), "{export}");
    }
    // What the developer wrote stays; what the host gives is brought up to date.
    fs::write(wit.join("world.wit"), "package my:own; world own {}").expect("written");
    fs::write(wit.join("deps/exprsn-sql/sql.wit"), "old").expect("written");
    printed(&["--out", wit_path]);
    assert!(
        fs::read_to_string(wit.join("world.wit"))
            .expect("a world")
            .contains("my:own")
    );
    assert!(printed(&["--check", wit_path]).contains("as they were published"));
}

#[test]
fn a_host_that_lacks_what_was_built_against_is_recognised() {
    let folder = tempfile::tempdir().expect("a folder");
    let wit = folder.path().to_str().expect("a path");
    printed(&["--out", wit]);
    let file = folder.path().join("deps/exprsn-cache/cache.wit");
    let text = fs::read_to_string(&file).expect("a package");
    let more = text.replace(
        "interface store {",
        "interface store {\n  clear: async func();",
    );
    fs::write(
        &file,
        more.replace("  retry-after-ms: u64,", "  retry-after-ms: u32,"),
    )
    .expect("written");
    let output = run(&["--check", wit]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for text in [
        "exprsn:cache@1/store.clear was removed",
        "exprsn:cache@1/types.bucket.retry-after-ms was `u32` and is now `u64`",
        "v2",
    ] {
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn the_synchronous_world_has_every_twin() {
    let resolve = wit::resolve(&wit::sources()).unwrap_or_else(|error| panic!("{error}"));
    let packages = wit::packages(&resolve);
    let extension = packages
        .iter()
        .find_map(|id| resolve.packages[*id].worlds.get("extension-sync"));
    let world = &resolve.worlds[*extension.expect("the world extension-sync")];
    let imports: Vec<_> = world
        .imports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    for id in packages {
        let package = &resolve.packages[id];
        let Some(twins) = package.worlds.get("imports-sync") else {
            continue;
        };
        for key in resolve.worlds[*twins].imports.keys() {
            let import = resolve.name_world_key(key);
            assert!(
                imports.contains(&import),
                "{import} is not in the world: write `include exprsn:{}/imports-sync@1.0.0;` into extension-sync in wit/extension/exprsn-extension/extension.wit",
                package.name.name
            );
        }
    }
}
