//! libFuzzer's entry to the target `cron`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("cron", input));
