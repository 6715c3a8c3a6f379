//! What a component file brings along: sections, manifest, migrations.

use super::text;
use crate::{
    component::ComponentFile,
    manifest::{Manifest, Migrations, RouteTable},
    name::ServiceName,
};
use std::path::Path;

/// A component file is read without running or compiling any of it.
pub fn component(input: &[u8]) {
    if let Ok(file) = ComponentFile::parse(Path::new("fuzz.wasm"), input.to_vec()) {
        assert_eq!(file.bytes, input);
        assert_eq!(file.digest.len(), 64);
        assert!(ServiceName::parse(file.manifest.name.as_str()).is_ok());
        // Its imports are anything; what is said about them is a sentence, not a panic.
        let _ = file.check_requests();
    }
}

/// A manifest that is accepted has routes that can be told apart, and declares what it triggers on.
pub fn manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::parse(&text(input)) else {
        return;
    };
    let table = RouteTable::new(&manifest.routes).expect("the routes were checked");
    for route in &manifest.routes {
        assert!(route.path.starts_with('/') && !route.methods.is_empty());
        let _ = table.find("GET", &route.path);
    }
    let declared = |queue: &str| manifest.queues.iter().any(|known| known.name == queue);
    assert!(
        manifest
            .schedules
            .iter()
            .all(|schedule| declared(&schedule.queue))
    );
    let _ = crate::config::Limits::layered(&[&manifest.limits]);
}

/// Migrations are read as names and statements.
pub fn migrations(input: &[u8]) {
    if let Ok(migrations) = serde_json::from_slice::<Migrations>(input) {
        let bytes: usize = migrations
            .files
            .iter()
            .map(|file| file.name.len() + file.sql.len())
            .sum();
        assert!(bytes <= input.len(), "nothing comes from nowhere");
    }
}
