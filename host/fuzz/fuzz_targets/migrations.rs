//! libFuzzer's entry to the target `migrations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("migrations", input));
