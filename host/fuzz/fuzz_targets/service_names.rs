//! libFuzzer's entry to the target `service_names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("service_names", input));
