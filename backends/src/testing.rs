//! Servers for tests: their own processes, in temporary directories, gone when the tests end.

pub mod postgres;
