//! Accounts, sessions, OAuth 2.1 and OpenID Connect.

pub mod domain;
