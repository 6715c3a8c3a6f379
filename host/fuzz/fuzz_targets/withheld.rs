//! libFuzzer's entry to the target `withheld`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("withheld", input));
