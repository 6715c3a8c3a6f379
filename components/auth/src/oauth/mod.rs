//! OAuth 2.1 and OpenID Connect, one file per endpoint. Errors are those of the RFCs, not problem documents.

pub mod authorize;
pub mod browser;
pub mod discovery;
pub mod error;
pub mod introspect;
pub mod jwks;
pub mod logout;
pub mod register;
pub mod revoke;
pub mod steps;
pub mod token;
pub mod userinfo;
