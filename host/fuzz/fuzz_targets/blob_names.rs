//! libFuzzer's entry to the target `blob_names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("blob_names", input));
