//! libFuzzer's entry to the target `queue_jobs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("queue_jobs", input));
