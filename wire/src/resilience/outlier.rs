//! When an endpoint is left alone for doing worse than the others.

use std::time::Duration;

use super::{OUTLIER_METADATA, number, object};
use crate::mesh::{MeshError, ours};
use crate::xds::Struct;
use crate::xds::core::Metadata;

/// Endpoints that do worse than the others are left alone for a while (Envoy `OutlierDetection`, gRFC A50).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// How often they are compared.
    pub interval: Duration,
    /// How long an endpoint is left alone, times the number of times in a row.
    pub base_ejection: Duration,
    /// The same at most; never less than [`Self::base_ejection`].
    pub max_ejection: Duration,
    /// At most so much is added at random (`max_ejection_time_jitter`).
    pub jitter: Duration,
    /// Share of the endpoints, in percent, from which on no other is ejected. One may always be, as in gRFC A50.
    pub max_percent: u32,
    /// By success rate, compared with the others'.
    pub success_rate: Option<SuccessRate>,
    /// By the share of failures.
    pub failure_percentage: Option<FailurePercentage>,
    /// Endpoints of the destination that are kept in use whatever they do.
    pub keep: u32,
}

/// Ejects endpoints whose success rate is below the mean less so many standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// Thousandths of the standard deviation.
    pub stdev_factor: u32,
    /// Endpoints with [`Self::volume`] below which nothing is concluded.
    pub hosts: u32,
    /// Requests in one interval below which nothing is concluded of an endpoint.
    pub volume: u32,
    /// Chance in percent that an outlier is really ejected.
    pub enforcing: u32,
}

/// Ejects endpoints whose failures are at least such a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailurePercentage {
    /// Failures in percent.
    pub threshold: u32,
    /// As [`SuccessRate::hosts`].
    pub hosts: u32,
    /// As [`SuccessRate::volume`].
    pub volume: u32,
    /// As [`SuccessRate::enforcing`].
    pub enforcing: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1900, hosts: 5, volume: 100, enforcing: 100 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, hosts: 5, volume: 50, enforcing: 100 }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_percent: 10,
            success_rate: None,
            failure_percentage: None,
            keep: 1,
        }
    }
}

impl Outlier {
    /// The metadata beyond Envoy's fields.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        object(vec![("keep", number(self.keep))])
    }

    /// Takes over what the metadata says.
    ///
    /// # Errors
    /// When a field is there that is no whole number.
    pub fn extend(&mut self, metadata: &Metadata) -> Result<(), MeshError> {
        let Some(fields) = ours(metadata, OUTLIER_METADATA)? else { return Ok(()) };
        self.keep = fields.integer("keep")?.unwrap_or(self.keep);
        Ok(())
    }
}
