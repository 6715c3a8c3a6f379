//! What the JSON API and the OAuth endpoints do alike: signing in, issuing tokens, ending what was issued.

pub mod end;
pub mod issue;
pub mod rotate;
pub mod second_factor;
pub mod sign_in;
