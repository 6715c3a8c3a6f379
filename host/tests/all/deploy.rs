//! The configurations in `deploy/` are ones that the host takes.

use exprsn::config::Config;
use std::{fs, path::Path};

#[test]
fn the_cluster_configuration_is_valid() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base/platform.toml");
    let error = match Config::read(&path) {
        Ok(config) => return assert_eq!(config.service.len(), 7),
        Err(error) => format!("{error:?}"),
    };
    // A host that is built without [cluster] says so, and takes the rest.
    assert!(error.contains("unknown field `cluster`"), "{error}");
    let text = fs::read_to_string(&path).expect("the configuration");
    let mut config: toml::Table = text.parse().expect("it parses");
    config.remove("cluster");
    let folder = tempfile::tempdir().expect("a folder");
    let rest = folder.path().join("platform.toml");
    fs::write(&rest, config.to_string()).expect("written");
    assert_eq!(Config::read(&rest).expect("valid").service.len(), 7);
}
