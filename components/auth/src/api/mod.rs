//! The JSON API, one file per resource: decode, call, encode.

pub mod account;
pub mod audit;
pub mod clients;
pub mod login;
pub mod people;
pub mod sessions;
pub mod totp;
mod valid;
mod view;
