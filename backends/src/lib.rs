//! What keeps the data of the Exprsn host: jobs and events, short-lived values, objects, and the embedded database.
//!
//! Each capability that has more than one way to keep its data has a trait here, its backends, and one conformance suite
//! that all of them pass. The host has the other half: configuration, grants, and what guests see.
//!
//! **Invariant:** nothing here knows of WebAssembly, so that it compiles and is tested in seconds.

#![forbid(unsafe_code)]

pub mod blob;
pub mod cache;
pub mod clock;
pub mod events;
pub mod name;
pub mod queue;
pub mod redis;
pub mod shared;
pub mod sql;
pub mod sqlite;
pub mod testing;
mod tls;
pub mod trace;
