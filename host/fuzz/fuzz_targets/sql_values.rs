//! libFuzzer's entry to the target `sql_values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn::fuzz::run("sql_values", input));
