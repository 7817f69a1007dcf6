//! When a workload's port takes no more requests, and whose it refuses then.
//!
//! What finds the limit travels as Envoy's filter `envoy.filters.http.adaptive_concurrency`; what Envoy has nothing for,
//! who is refused first, is metadata of the port's filter chain under [`CRITICALITY_METADATA`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Key in `FilterChain.metadata.filter_metadata` (Envoy `listener.v3`). See [`CriticalityRule`].
pub const CRITICALITY_METADATA: &str = "pillion.dev/criticality";

/// Load shedding of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadShedding {
    /// How the limit is found.
    pub gradient: Gradient,
    /// How important a request is.
    pub criticality: CriticalityRule,
}

/// How the limit on what is under way at once is found (Envoy `GradientControllerConfig`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gradient {
    /// Which latency stands for those of a window (`sample_aggregate_percentile`).
    pub percentile: Percent,
    /// How often the limit is calculated (`concurrency_update_interval`). Longer than 0.
    pub update_interval: Duration,
    /// The limit at most (`max_concurrency_limit`). Above 0.
    pub most: u32,
    /// The limit at least (`min_concurrency_limit`); `None`: [`MinRtt::concurrency`].
    pub least: Option<u32>,
    /// The latency without load (`min_rtt_calc_params`).
    pub min_rtt: MinRtt,
}

/// How the latency without load is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MinRtt {
    /// It is known, and never measured (`fixed_value`).
    pub fixed: Option<Duration>,
    /// How often it is measured (`interval`). Not shorter than 1 ms.
    pub interval: Duration,
    /// From how many requests (`request_count`). Above 0.
    pub requests: u32,
    /// Up to so much of the interval is added to it at random (`jitter`).
    pub jitter: Percent,
    /// How many may be under way while it is measured (`min_concurrency`). Above 0.
    pub concurrency: u32,
    /// So much is added to it before latencies are compared with it (`buffer`).
    pub buffer: Percent,
}

/// A share, to a hundredth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(
    /// Hundredths of a percent.
    pub u32,
);

/// How important a request is, from the least on (Google, "Site Reliability Engineering", chapter 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Criticality {
    /// Nobody minds if it fails now and then.
    Sheddable,
    /// Partly unavailable is expected: batch jobs, which try again.
    SheddablePlus,
    /// Users would notice. What requests are that say nothing.
    #[default]
    Critical,
    /// Users would notice at once.
    CriticalPlus,
}

/// How important a request is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CriticalityRule {
    /// The header field that says so, in lower case. Only callers of the mesh are believed.
    pub header: String,
    /// What requests are that do not say, or say something unknown.
    pub default: Criticality,
    /// What other words than the four names mean, in lower case.
    pub values: BTreeMap<String, Criticality>,
}

impl LoadShedding {
    /// The header field, if the document does not name one.
    pub const HEADER: &str = "x-criticality";
}

impl Default for Gradient {
    /// Envoy's defaults; for the interval, which has none there, that of its documentation.
    fn default() -> Self {
        Self {
            percentile: Percent::whole(50),
            update_interval: Duration::from_millis(100),
            most: 1000,
            least: None,
            min_rtt: MinRtt::default(),
        }
    }
}

impl Gradient {
    /// The limit at least.
    #[must_use]
    pub fn floor(&self) -> u32 {
        self.least.unwrap_or(self.min_rtt.concurrency)
    }
}

impl Default for MinRtt {
    /// Envoy's defaults; for the interval, which has none there, that of its documentation.
    fn default() -> Self {
        Self {
            fixed: None,
            interval: Duration::from_secs(60),
            requests: 50,
            jitter: Percent::whole(15),
            concurrency: 3,
            buffer: Percent::whole(25),
        }
    }
}

impl Default for CriticalityRule {
    fn default() -> Self {
        Self { header: LoadShedding::HEADER.to_owned(), default: Criticality::default(), values: BTreeMap::new() }
    }
}

impl Percent {
    /// So many percent.
    #[must_use]
    pub const fn whole(percent: u32) -> Self {
        Self(percent * 100)
    }

    /// Of 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// As Envoy's `Percent` has it.
    #[must_use]
    pub fn to_double(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The nearest one. `None`: it is none from 0 to 100.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 10,000")]
    pub fn from_double(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 100.0).round() as u32))
    }
}

impl Criticality {
    /// From the least on.
    pub const ALL: [Self; 4] = [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus];

    /// As documents, header fields and metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sheddable => "SHEDDABLE",
            Self::SheddablePlus => "SHEDDABLE_PLUS",
            Self::Critical => "CRITICAL",
            Self::CriticalPlus => "CRITICAL_PLUS",
        }
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl CriticalityRule {
    /// What a request is whose header field says `said`, in any case of letters.
    #[must_use]
    pub fn read(&self, said: Option<&str>) -> Criticality {
        let Some(said) = said.map(str::trim).filter(|said| !said.is_empty()) else { return self.default };
        let named = Criticality::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(said));
        let mapped = || self.values.iter().find(|(word, _)| word.eq_ignore_ascii_case(said)).map(|(_, known)| *known);
        named.or_else(mapped).unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension;
    use crate::xds::core::Metadata;

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_are_the_default() {
        let values = BTreeMap::from([("batch".to_owned(), Criticality::Sheddable)]);
        let rule = CriticalityRule { default: Criticality::SheddablePlus, values, ..CriticalityRule::default() };
        for (said, wanted) in [
            (None, Criticality::SheddablePlus),
            (Some(""), Criticality::SheddablePlus),
            (Some("urgent"), Criticality::SheddablePlus),
            (Some("critical_plus"), Criticality::CriticalPlus),
            (Some(" CRITICAL "), Criticality::Critical),
            (Some("Batch"), Criticality::Sheddable),
        ] {
            assert_eq!(rule.read(said), wanted, "{said:?}");
        }
        let mut metadata = Metadata::default();
        extension::put(&mut metadata, CRITICALITY_METADATA, &rule);
        assert_eq!(extension::get(&metadata, CRITICALITY_METADATA), Ok(Some(rule)));
    }

    #[test]
    fn percentages_survive_the_wire() {
        for hundredths in 0..=10_000 {
            assert_eq!(Percent::from_double(Percent(hundredths).to_double()), Some(Percent(hundredths)));
        }
        for wrong in [-1.0, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Percent::from_double(wrong), None);
        }
    }

    #[test]
    fn they_are_in_order() {
        assert!(Criticality::ALL.is_sorted());
        assert!(Criticality::ALL.into_iter().enumerate().all(|(index, one)| one.index() == index));
    }
}
