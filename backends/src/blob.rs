//! Objects of any size in containers.

pub mod backend;
#[cfg(test)]
mod conformance;
pub mod directory;
pub mod name;
pub mod s3;
