//! What auth decides, without any I/O: time, randomness and stored facts come in as parameters.
//!
//! **Invariant:** nothing under this module calls the host, so all of it is tested natively.

pub mod argon;
pub mod authorize;
pub mod client;
pub mod form;
pub mod id_token;
pub mod lockout;
pub mod names;
pub mod password;
pub mod pkce;
pub mod redirect;
pub mod refresh;
pub mod scope;
pub mod secret;
pub mod totp;
