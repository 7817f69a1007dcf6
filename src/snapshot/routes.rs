//! Routes compiled for use: each points at its clusters, so that a request needs no further lookup.

use std::sync::Arc;

use http::{StatusCode, request};

use super::{Changes, Filters};
use crate::config;
use crate::route;
use crate::telemetry::explain::{Chosen, FURTHER_ROUTES};
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
    /// Its paths, for people: `/a`, `/a/*`.
    pub paths: Arc<str>,
    /// What to do.
    pub action: Action,
    /// What to do besides; for most nothing.
    pub filters: Option<Arc<Filters>>,
    /// What to do when no endpoint can take the request.
    pub fallback: Option<Arc<Fallback>>,
    /// How long that may take, and when it is repeated; `None` when nothing is said of either.
    pub treatment: Option<Arc<config::Treatment>>,
    /// The same name, and what it comes from.
    pub chosen: Arc<Chosen>,
}

/// Who is asked, and what is answered, when no endpoint of a route's cluster can take a request.
#[derive(Debug)]
pub struct Fallback {
    /// Asked in this order.
    pub clusters: Vec<Arc<Cluster>>,
    /// Answered when none of them can take it either. `None`: why it failed.
    pub response: Option<(StatusCode, String)>,
}

/// A compiled `Route.action`.
#[derive(Debug)]
pub enum Action {
    /// Send it to one of these clusters.
    Forward(Split),
    /// Send the client elsewhere.
    Redirect(config::Redirect),
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
    choices: Vec<Choice>,
    total: u64,
    hash: Box<[config::HashPolicy]>,
    lasts: config::Lasts,
    by_hash: bool,
}

/// One of the clusters of a [`Split`].
#[derive(Debug)]
pub struct Choice {
    /// Where its share ends: the sum of the weights so far.
    end: u64,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What is done to heads on the way there and back; for most nothing.
    pub changes: Option<Arc<Changes>>,
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
        self.select_among(request).map(|(route, _)| route)
    }

    /// The same, and the next one of another name that would have matched, among the few that follow: a route that has
    /// several matches is no runner-up to itself.
    pub fn select_with_next(&self, request: &request::Parts) -> Option<(&Route, Option<&Route>)> {
        let (chosen, rest) = self.select_among(request)?;
        let mut others = rest.iter().take(FURTHER_ROUTES).filter(|route| route.name != chosen.name);
        let next = others.find(|route| route::matches(&route.matches, request));
        Some((chosen, next))
    }

    /// The first that matches, and those after it.
    fn select_among(&self, request: &request::Parts) -> Option<(&Route, &[Route])> {
        let authority = route::authority(request);
        let domains = self.virtual_hosts.iter().map(|host| host.domains.as_slice());
        let host = self.virtual_hosts.get(route::best_domain(domains, &authority)?)?;
        let at = host.routes.iter().position(|route| route::matches(&route.matches, request))?;
        host.routes.get(at..)?.split_first()
    }
}

impl Split {
    /// Clusters with their weights. `None` when there is no cluster.
    pub fn new(clusters: impl IntoIterator<Item = (std::num::NonZeroU32, Arc<Cluster>)>) -> Option<Self> {
        Self::changing(clusters.into_iter().map(|(weight, cluster)| (weight, cluster, None)))
    }

    /// The same with what is done to heads on the way to each.
    pub fn changing(
        clusters: impl IntoIterator<Item = (std::num::NonZeroU32, Arc<Cluster>, Option<Changes>)>,
    ) -> Option<Self> {
        let mut total = 0;
        let choices: Vec<_> = clusters
            .into_iter()
            .map(|(weight, cluster, changes)| {
                total += u64::from(weight.get());
                Choice { end: total, cluster, changes: changes.map(Arc::new) }
            })
            .collect();
        (!choices.is_empty()).then_some(Self {
            choices,
            total,
            hash: Box::default(),
            by_hash: false,
            lasts: config::Lasts::default(),
        })
    }

    /// The same, for calls that are kept together by this.
    #[must_use]
    pub fn hashed_by(mut self, hash: &[config::HashPolicy], by_hash: bool) -> Self {
        (self.hash, self.by_hash) = (hash.into(), by_hash);
        self
    }

    /// The same, for connections that last as long as this.
    #[must_use]
    pub fn lasting(self, lasts: config::Lasts) -> Self {
        Self { lasts, ..self }
    }

    /// How long connections of opaque TCP last.
    pub fn lasts(&self) -> config::Lasts {
        self.lasts
    }

    /// What calls are kept together by; mostly empty.
    pub fn hash(&self) -> &[config::HashPolicy] {
        &self.hash
    }

    /// The cluster that `chance`, uniform over all of `u64`, falls on.
    pub fn pick(&self, chance: u64) -> &Arc<Cluster> {
        &self.choose(chance).cluster
    }

    /// The same with what is done to heads on the way there.
    pub fn choose(&self, chance: u64) -> &Choice {
        let point = chance % self.total;
        let at = self.choices.partition_point(|choice| choice.end <= point);
        #[expect(clippy::indexing_slicing, reason = "point < total, and total is the end of the last choice")]
        &self.choices[at]
    }

    /// The choice for a call with this hash; else, and where calls are not kept on a cluster, the one that `chance` falls
    /// on. When weights change, only those calls move whose share has gone over to another cluster, whatever the sum of the
    /// weights is.
    pub fn choose_for(&self, hash: Option<u64>, chance: impl FnOnce() -> u64) -> &Choice {
        let Some(hash) = hash.filter(|_| self.by_hash) else { return self.choose(chance()) };
        // Rings go by the hash itself: a cluster must not get all of its calls from one part of them.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let point = (u128::from(mixed ^ (mixed >> 29)).wrapping_mul(u128::from(self.total))) >> 64;
        self.choose(u64::try_from(point).unwrap_or_default())
    }

    /// All clusters with their weights.
    pub fn clusters(&self) -> impl Iterator<Item = (u64, &Arc<Cluster>)> {
        self.choices().map(|(weight, choice)| (weight, &choice.cluster))
    }

    /// The same with what is done to heads on the way to each.
    pub fn choices(&self) -> impl Iterator<Item = (u64, &Choice)> {
        let starts = std::iter::once(0).chain(self.choices.iter().map(|choice| choice.end));
        self.choices.iter().zip(starts).map(|(choice, start)| (choice.end - start, choice))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::balance::xxh64;

    /// The cluster of each of `count` callers, when `new` of `old` + `new` go to the second.
    fn places(old: u32, new: u32, count: u64) -> Vec<String> {
        let cluster = |name: &str| {
            let config = config::Cluster::new(name);
            Arc::new(Cluster { config, upstream: Arc::new(Upstream::new(name)) })
        };
        let weights = [(old, "old"), (new, "new")];
        let weighed = weights.map(|(weight, name)| (NonZeroU32::new(weight).expect("not 0"), cluster(name)));
        let split = Split::new(weighed).expect("clusters").hashed_by(&[], true);
        let name = |caller: u64| {
            let hash = xxh64(&caller.to_le_bytes(), 0);
            split.choose_for(Some(hash), || 0).cluster.config.name.clone()
        };
        (0..count).map(name).collect()
    }

    #[tokio::test]
    async fn callers_stay_on_their_cluster_and_move_only_as_its_share_does() {
        let before = places(90, 10, 20_000);
        for (old, new) in [(80, 20), (90, 40), (1, 1), (1, 999_999)] {
            let after = places(old, new, 20_000);
            let there = after.iter().filter(|name| *name == "new").count();
            let expected = 20_000.0 * f64::from(new) / f64::from(old + new);
            assert!((there as f64 - expected).abs() < 400.0, "{old}:{new}: {there}");
            let back = before.iter().zip(&after).filter(|(before, after)| *before == "new" && *after == "old");
            assert_eq!(back.count(), 0, "nobody goes back: {old}:{new}");
        }
    }
}
