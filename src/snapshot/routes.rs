//! Routes compiled for use: each points at its clusters, so that a request needs no further lookup.

use std::sync::Arc;

use http::{StatusCode, request};

use crate::config;
use crate::route;
use crate::upstream::Upstream;

/// A compiled `RouteConfiguration`.
#[derive(Debug)]
pub struct Routes {
    /// Name of the resource.
    pub name: String,
    /// Searched by authority.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// A compiled `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// Lower-case domain patterns.
    pub domains: Vec<String>,
    /// First match wins.
    pub routes: Vec<Route>,
}

/// A compiled `Route`.
#[derive(Debug)]
pub struct Route {
    /// `<kind>/<namespace>/<name>/<rule>`; may be empty.
    pub name: Arc<str>,
    /// What it applies to.
    pub matches: config::RouteMatch,
    /// What to do.
    pub action: Action,
    /// How long that may take, and when it is repeated; `None` when nothing is said of either.
    pub treatment: Option<Arc<config::Treatment>>,
}

/// A compiled `Route.action`.
#[derive(Debug)]
pub enum Action {
    /// Send it to one of these clusters.
    Forward(Split),
    /// Answer at once.
    DirectResponse {
        /// Status to answer with.
        status: StatusCode,
        /// Body, often empty.
        body: String,
    },
}

/// Clusters by weight. Never empty.
#[derive(Debug)]
pub struct Split {
    choices: Vec<(u64, Arc<Cluster>)>,
    total: u64,
}

/// A cluster as told, with its live side.
#[derive(Debug)]
pub struct Cluster {
    /// What we were told.
    pub config: config::Cluster,
    /// What we measure.
    pub upstream: Arc<Upstream>,
}

impl Routes {
    /// The first route of the best virtual host that matches, as Envoy chooses. `None`: no route (404).
    pub fn select(&self, request: &request::Parts) -> Option<&Route> {
        let authority = route::authority(request);
        let domains = self.virtual_hosts.iter().map(|host| host.domains.as_slice());
        let host = self.virtual_hosts.get(route::best_domain(domains, &authority)?)?;
        host.routes.iter().find(|route| route::matches(&route.matches, request))
    }
}

impl Split {
    /// Clusters with their weights. `None` when there is no cluster.
    pub fn new(clusters: impl IntoIterator<Item = (std::num::NonZeroU32, Arc<Cluster>)>) -> Option<Self> {
        let mut total = 0;
        let choices: Vec<_> = clusters
            .into_iter()
            .map(|(weight, cluster)| {
                total += u64::from(weight.get());
                (total, cluster)
            })
            .collect();
        (!choices.is_empty()).then_some(Self { choices, total })
    }

    /// The cluster that `chance`, uniform over all of `u64`, falls on.
    pub fn pick(&self, chance: u64) -> &Arc<Cluster> {
        let point = chance % self.total;
        let at = self.choices.partition_point(|(end, _)| *end <= point);
        #[expect(clippy::indexing_slicing, reason = "point < total, and total is the end of the last choice")]
        &self.choices[at].1
    }

    /// All clusters with their weights.
    pub fn clusters(&self) -> impl Iterator<Item = (u64, &Arc<Cluster>)> {
        let starts = std::iter::once(0).chain(self.choices.iter().map(|(end, _)| *end));
        self.choices.iter().zip(starts).map(|((end, cluster), start)| (end - start, cluster))
    }
}
