//! The one integration-test binary: a file for each capability and each service, over real HTTP against the real binary.

#![allow(clippy::too_many_lines, reason = "a test reads as one story")]

mod harness;

mod admission;
mod auth;
mod blob;
mod ca;
mod cache;
mod cli;
mod config;
mod coverage;
mod events;
mod fanout;
mod grants;
mod herald;
mod http;
mod isolation;
mod nexus;
mod platform;
mod pulse;
mod queue;
mod revocation;
mod setup;
mod specification;
mod sql;
mod start;
mod telemetry;
mod timeline;
