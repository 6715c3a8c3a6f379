//! libFuzzer's entry to the target `ca_claims`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("ca_claims", input));
