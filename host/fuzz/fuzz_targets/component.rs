//! libFuzzer's entry to the target `component`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("component", input));
