//! Metrics of active health checks, under Envoy's names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::metrics::{ClusterNames, Listed};

/// Checks by cluster (Envoy: `cluster.<name>.health_check.*`).
#[derive(Debug, Default)]
pub struct HealthMetrics {
    events: Family<EventLabels, Counter>,
    healthy: Family<ClusterLabels, Gauge>,
    names: Arc<ClusterNames>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabels {
    cluster: Arc<str>,
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    cluster: Arc<str>,
}

impl HealthMetrics {
    pub(super) fn of(names: Arc<ClusterNames>) -> Self {
        Self { names, ..Self::default() }
    }

    pub(super) fn register(&self, registry: &mut Listed) {
        registry.register(
            "health_check_events",
            "Active health checks: attempt, success or failure; of the failures, those without answer: network_failure; \
             of the attempts, those that failing traffic brought about: passive_failure",
            self.events.clone(),
        );
        registry.register("health_check_healthy", "Endpoints that pass their health checks", self.healthy.clone());
    }

    /// A check of a host of `cluster`: `attempt`, `success`, `failure`; a failure may be a `network_failure` besides, and an
    /// attempt a `passive_failure` (of the traffic before it).
    pub fn event(&self, cluster: &Arc<str>, event: &'static str) {
        self.events.get_or_create(&EventLabels { cluster: self.names.known(cluster), event }).inc();
    }

    /// So many hosts of `cluster` pass their checks.
    pub fn healthy(&self, cluster: &Arc<str>, count: usize) {
        let labels = ClusterLabels { cluster: self.names.known(cluster) };
        self.healthy.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn clear_gauges(&self) {
        self.healthy.clear();
    }
}
