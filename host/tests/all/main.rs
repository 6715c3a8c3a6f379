//! The one integration-test binary: a file for each capability and each service, over real HTTP against the real binary.

mod harness;

mod auth;
mod ca;
mod cache;
mod coverage;
mod events;
mod fanout;
mod grants;
mod herald;
mod http;
mod isolation;
mod pulse;
mod queue;
mod specification;
mod sql;
mod start;
mod timeline;
