//! The one integration-test binary: a file for each capability and each service, over real HTTP against the real binary.

#![allow(clippy::too_many_lines, reason = "a test reads as one story")]

mod harness;
mod peer;

mod admission;
mod adversaries;
mod auth;
mod backup;
mod blob;
mod ca;
mod cache;
mod cli;
mod config;
mod console;
mod coverage;
mod deploy;
mod dev;
mod egress;
mod events;
mod examples;
mod fanout;
mod faults;
mod fuzz;
mod grants;
mod herald;
mod hosts;
mod http;
mod mesh;
mod nexus;
mod outage;
mod platform;
mod pulse;
mod queue;
mod revocation;
mod setup;
mod sockets;
mod specification;
mod sql;
mod start;
mod swap;
mod telemetry;
mod timeline;
mod tls;
mod tracing;
mod twins;
mod wit;
