//! libFuzzer's entry to the target `egress`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("egress", input));
