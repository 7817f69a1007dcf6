//! What prometheus-client keeps, as families.

use pillion_wire::exposition::{Family, Kind, parse};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry};

/// A registry, and what is in it: it does not show what has no value yet, but readers want to know what there may be.
#[derive(Debug)]
pub(crate) struct Listed {
    registry: Registry,
    prefix: &'static str,
    families: Vec<Family>,
}

impl Listed {
    /// Empty. All names begin with `prefix`.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { registry: Registry::with_prefix(prefix), prefix, families: Vec::new() }
    }

    /// One more.
    pub(crate) fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        let kind = match metric.metric_type() {
            MetricType::Counter => Kind::Counter,
            MetricType::Histogram => Kind::Histogram,
            _ => Kind::Gauge,
        };
        let (name_shown, help_shown) = (format!("{}_{name}", self.prefix), format!("{help}."));
        let family = Family { name: name_shown.into(), help: help_shown.into(), kind, points: Vec::new() };
        self.families.push(family);
        self.registry.register(name, help, metric);
    }

    /// All that are registered, those without a value too.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        let mut shown = parse(&text);
        let all = self.families.iter().map(|family| {
            let place = shown.iter().position(|shown| shown.name == family.name);
            place.map_or_else(|| family.clone(), |place| shown.swap_remove(place))
        });
        all.collect()
    }
}
