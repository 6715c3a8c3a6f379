//! The one integration-test binary: a file for each capability and each service, over real HTTP against the real binary.

mod harness;

mod ca;
mod coverage;
mod fanout;
mod grants;
mod herald;
mod http;
mod isolation;
mod pulse;
mod specification;
mod sql;
mod start;
mod timeline;
