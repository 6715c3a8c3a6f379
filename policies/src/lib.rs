//! What calls between services go by, as logic alone: no call is made here, no clock is read and no dice are thrown.
//!
//! **Invariant:** time comes in as an [`Instant`](std::time::Instant), chance as a function, so that every behaviour can
//! be shown by a test without waiting. What a call passes while all is well is atomics: no lock, no allocation.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backoff;
mod breaker;
mod budget;
mod bulkhead;
mod fallback;
mod shedder;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerSettings, Pass, Refused, State, Transition, Verdict, View};
pub use budget::Budget;
pub use bulkhead::{Bulkhead, Full, Permit};
pub use fallback::{Answer, Fallback, may_keep, varying};
pub use shedder::{Place, Priority, Shedder};
