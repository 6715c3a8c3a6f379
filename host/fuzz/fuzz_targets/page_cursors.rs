//! libFuzzer's entry to the target `page_cursors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exprsn_sdk::page::fuzz(input));
