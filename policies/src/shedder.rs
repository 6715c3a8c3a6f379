//! Load shedding: as a target fills, calls of low priority are turned away first.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How much a call matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Turned away first: what can be done later.
    Low,
    /// What nobody said anything of.
    Normal,
    /// Turned away last.
    High,
}

impl Priority {
    /// One class lower, for what nobody waits for.
    pub fn lowered(self) -> Self {
        match self {
            Self::High => Self::Normal,
            Self::Normal | Self::Low => Self::Low,
        }
    }

    /// The name in logs and problems.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// The calls of one target that are under way, whoever makes them.
#[derive(Debug)]
pub struct Shedder {
    under_way: AtomicUsize,
    /// How many may be under way when one more of each priority comes.
    below: [usize; 3],
}

/// A call's place at its target, until dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a Shedder);

impl Shedder {
    /// `capacity` calls at most; of low and normal priority as long as less than this share of it is taken.
    pub fn new(capacity: usize, low_percent: u32, normal_percent: u32) -> Self {
        let share = |percent: u32| {
            let share = capacity.saturating_mul(percent.min(100) as usize) / 100;
            share.max(1)
        };
        Self {
            under_way: AtomicUsize::new(0),
            below: [share(low_percent), share(normal_percent), capacity.max(1)],
        }
    }

    /// A place for a call; none where it is to be turned away.
    pub fn admit(&self, priority: Priority) -> Option<Place<'_>> {
        let before = self.under_way.fetch_add(1, Relaxed);
        let place = Place(self);
        (before < self.below[priority as usize]).then_some(place)
    }

    /// Calls under way.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shedder: &Shedder, priority: Priority) -> Vec<Place<'_>> {
        (0..100).map_while(|_| shedder.admit(priority)).collect()
    }

    #[test]
    fn the_lowest_go_first() {
        let shedder = Shedder::new(10, 50, 80);
        let low = fill(&shedder, Priority::Low);
        let normal = fill(&shedder, Priority::Normal);
        let high = fill(&shedder, Priority::High);
        assert_eq!((low.len(), normal.len(), high.len()), (5, 3, 2));
        assert_eq!(shedder.under_way(), 10);
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let shedder = Shedder::new(2, 100, 100);
        let places = fill(&shedder, Priority::Low);
        assert!(shedder.admit(Priority::High).is_none());
        drop(places);
        assert_eq!(shedder.under_way(), 0);
        assert!(shedder.admit(Priority::Low).is_some());
    }

    #[test]
    fn every_priority_gets_in_where_nothing_is_under_way() {
        assert!(Shedder::new(1, 0, 0).admit(Priority::Low).is_some());
    }

    #[test]
    fn what_nobody_waits_for_is_one_lower() {
        let lowered = [Priority::High, Priority::Normal, Priority::Low].map(Priority::lowered);
        assert_eq!(lowered, [Priority::Normal, Priority::Low, Priority::Low]);
        assert!(Priority::Low < Priority::High);
    }
}
