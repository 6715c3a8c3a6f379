//! The Exprsn host: loads WebAssembly components, isolates them, and lends them capabilities.
//!
//! `main.rs` parses arguments and calls [`platform::run`]; everything else is reachable from there, top-down.

pub mod allowance;
pub mod approval;
pub mod ca;
pub mod capability;
pub mod cli;
pub mod cluster;
pub mod component;
pub mod config;
pub mod cores;
pub mod deployments;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod inspection;
pub mod invocation;
pub mod library;
pub mod listener;
pub mod manifest;
pub mod mesh;
pub mod narrow;
pub mod own;
pub mod pack;
pub mod panics;
pub mod platform;
pub mod problem;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trigger;
pub mod waiting;
pub mod wit;
pub mod withheld;

pub use exprsn_backends::{clock, name, sqlite};
