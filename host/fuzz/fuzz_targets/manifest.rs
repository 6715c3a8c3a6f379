//! libFuzzer's entry to the target `manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("manifest", input));
