//! libFuzzer's entry to the target `token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("token", input));
