//! The `ca` capability: who is calling, tokens, and keys that never enter guest memory.
//!
//! **Invariant:** a service reads who is calling without any scope; whatever else it does with tokens and keys is bounded
//! by `[grants.ca]`, and a denial says what to add there.
//! **Invariant:** the interface `authority` is linked for exprsn-ca alone: platform/load.rs refuses the grant to others.

mod components;
pub(crate) mod convert;
mod grant;
pub(crate) mod host;
mod keys;
mod twin;

pub use grant::{Grant, MintGrant};
pub use host::{Ca, Lent};

/// `[capability.ca]` in platform.toml.
pub type Config = crate::ca::Options;
