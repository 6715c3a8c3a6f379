//! The `config` capability: the manifest's defaults, overlaid by the operator's values, and nobody else's.

use crate::harness::{Platform, Setup};

#[test]
fn the_operators_value_goes_before_the_manifests() {
    let platform = Platform::start(&Setup {
        guests: &["settings"],
        config: "[service.exprsn-settings.config]\ncolour = \"green\"\nsecret_of_others = \"no\"\n",
        ..Setup::default()
    });
    let value = |key: &str| {
        platform
            .call("settings", "GET", &format!("/value/{key}"))
            .send()
    };
    assert_eq!(value("colour").expect_status(200).text(), "green");
    assert_eq!(value("size").expect_status(200).text(), "medium");
    value("absent").expect_problem(404, "absent");
}

#[test]
fn errors_when_not_granted() {
    // A component imports it or does not: without [grants.config] the settings guest does not load.
    let folder = tempfile::tempdir().expect("a folder");
    let component = crate::harness::built("guests").join("exprsn-settings.wasm");
    let config = format!(
        "[service.exprsn-settings]\ncomponent = {component:?}\ngrants = {{ telemetry = \"as-requested\" }}"
    );
    std::fs::write(folder.path().join("platform.toml"), config).expect("written");
    let output = std::process::Command::new(crate::harness::EXPRSN)
        .arg("up")
        .current_dir(folder.path())
        .output();
    let error = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    assert!(
        error.contains("asks for `config`") && error.contains("[service.exprsn-settings]"),
        "{error}"
    );
}
