//! libFuzzer's entry to the target `patterns`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("patterns", input));
