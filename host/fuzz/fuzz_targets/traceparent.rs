//! libFuzzer's entry to the target `traceparent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("traceparent", input));
