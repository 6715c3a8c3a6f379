//! The fuzz targets of `host/fuzz`, run over their seeds and many small changes of these: no fuzzer is needed to see that
//! they compile, that their seeds are good, and that none of them falls at the first stumbling block.

use exprsn::fuzz::{
    INPUT_BYTES_MAX, TARGETS,
    mutate::{Numbers, mutate},
};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Changed inputs for each target.
const ROUNDS: usize = 4_000;
/// The SDK's target, which its own tests run.
const OF_THE_SDK: &str = "page_cursors";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect()
}

#[test]
fn targets_hold_for_their_seeds_and_for_changes_of_them() {
    for (at, target) in TARGETS.iter().enumerate() {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        let mut numbers = Numbers::new(at as u64);
        for _ in 0..ROUNDS {
            let [seed, other] = [(); 2].map(|()| &seeds[numbers.below(seeds.len())]);
            let input = mutate(&mut numbers, seed, other, INPUT_BYTES_MAX);
            let tried = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(
                tried.is_ok(),
                "{} falls over {:?}",
                target.name,
                String::from_utf8_lossy(&input)
            );
        }
    }
}

#[test]
fn each_target_has_a_program_for_the_fuzzer() {
    let listed: BTreeSet<String> = TARGETS
        .iter()
        .map(|target| target.name)
        .chain([OF_THE_SDK])
        .map(str::to_owned)
        .collect();
    let programs: BTreeSet<String> = fs::read_dir(folder().join("fuzz_targets"))
        .expect("a folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let stem = path.file_stem().expect("a name").to_string_lossy();
            stem.into_owned()
        })
        .collect();
    assert_eq!(listed, programs);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let bins = manifest["bin"].as_array().expect("programs");
    let bins: BTreeSet<String> = bins
        .iter()
        .filter_map(|bin| bin["name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(listed, bins);
}
