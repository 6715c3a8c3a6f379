//! What is remembered, one file per table or two. Only SQL here: no decisions.

pub mod attempts;
pub mod audit;
pub mod clients;
pub mod codes;
pub mod grants;
pub mod second_factor;
pub mod sessions;
pub mod users;
