//! Which traces are recorded.

use serde::{Deserialize, Serialize};

/// OpenTelemetry's samplers, by their standard names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    AlwaysOn,
    AlwaysOff,
    #[serde(rename = "traceidratio")]
    Ratio,
    #[serde(rename = "parentbased_always_on")]
    ParentAlwaysOn,
    #[serde(rename = "parentbased_always_off")]
    ParentAlwaysOff,
    #[serde(rename = "parentbased_traceidratio")]
    ParentRatio,
}

impl Sampler {
    /// A sampler by its standard name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::Ratio,
            "parentbased_always_on" => Self::ParentAlwaysOn,
            "parentbased_always_off" => Self::ParentAlwaysOff,
            "parentbased_traceidratio" => Self::ParentRatio,
            _ => return None,
        })
    }

    /// Whether a trace is recorded whose caller, if there is one, said `parent`.
    pub fn decide(self, parent: Option<bool>, trace_id: u128, ratio: f64) -> bool {
        match (self, parent) {
            (Self::ParentAlwaysOn | Self::ParentAlwaysOff | Self::ParentRatio, Some(sampled)) => {
                sampled
            }
            (Self::AlwaysOn | Self::ParentAlwaysOn, _) => true,
            (Self::AlwaysOff | Self::ParentAlwaysOff, _) => false,
            (Self::Ratio | Self::ParentRatio, _) => within(trace_id, ratio),
        }
    }
}

/// By the trace's id, so that all who meet the trace decide alike.
fn within(trace_id: u128, ratio: f64) -> bool {
    if ratio >= 1.0 {
        return true;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the low half of the id decides, and a ratio is as exact as its bound"
    )]
    let (low, bound) = (
        (trace_id as u64) >> 1,
        (ratio.max(0.0) * (1u64 << 63) as f64) as u64,
    );
    low < bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_word_counts_where_the_sampler_says_so() {
        assert!(!Sampler::ParentAlwaysOn.decide(Some(false), 1, 1.0));
        assert!(Sampler::AlwaysOn.decide(Some(false), 1, 1.0));
        assert!(Sampler::ParentRatio.decide(Some(true), 1, 0.0));
        assert!(!Sampler::ParentRatio.decide(None, 1, 0.0));
    }

    #[test]
    fn a_ratio_of_traces_is_recorded() {
        let step = u64::MAX / 1_000;
        let ids = (0..1_000).map(|index| u128::from(step * index));
        let recorded = ids.filter(|id| Sampler::Ratio.decide(None, *id, 0.25));
        assert!((245..=255).contains(&recorded.count()));
    }
}
