//! A target from configuration, when everything that it refers to is there.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::Catalog;
use crate::config::{self, HttpFilter, Labels, OutboundListener, PathMatch, RouteConfig, RouteSource};
use crate::snapshot::{
    Action, Changes, Cluster, Fallback, Filters, Mirror, Route, Routes, Split, Target, TlsSplits, VirtualHost,
};
use crate::telemetry::explain::Chosen;

/// `None`: something is still missing.
pub(super) fn target(listener: &OutboundListener, catalog: &Catalog) -> Option<Target> {
    let mut clusters = Clusters { catalog, filters: &listener.filters, found: HashMap::new() };
    let http = match &listener.http {
        Some(RouteSource::Named(name)) => Some(clusters.routes(&catalog.route(name)?)?),
        Some(RouteSource::Inline(config)) => Some(clusters.routes(config)?),
        None => None,
    };
    let tcp = match &listener.tcp {
        Some(split) => Some(clusters.split(split)?),
        None => None,
    };
    let mut chains = Vec::with_capacity(listener.tls.len());
    for chain in &listener.tls {
        chains.push((chain.server_names.as_slice(), clusters.split(&chain.split)?));
    }
    let tls = TlsSplits::new(chains);
    Some(Target::new(listener.destination.clone(), http, tcp, tls).from(&listener.origins))
}

/// Looks each cluster up once.
struct Clusters<'a> {
    catalog: &'a Catalog,
    /// The HTTP filters of the listener.
    filters: &'a [HttpFilter],
    found: HashMap<(String, Labels), Arc<Cluster>>,
}

impl Clusters<'_> {
    fn routes(&mut self, config: &RouteConfig) -> Option<Routes> {
        let virtual_hosts = config.virtual_hosts.iter().map(|host| {
            let routes = host.routes.iter().map(|route| self.route(route)).collect::<Option<_>>()?;
            Some(VirtualHost { domains: host.domains.clone(), routes })
        });
        Some(Routes { name: config.name.clone(), virtual_hosts: virtual_hosts.collect::<Option<_>>()? })
    }

    fn route(&mut self, route: &config::Route) -> Option<Route> {
        let action = match &route.action {
            config::Action::Forward(split) => Action::Forward(self.split(split)?),
            config::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
            config::Action::DirectResponse { status, body } => {
                Action::DirectResponse { status: *status, body: body.clone() }
            }
        };
        let mut mirrors = Vec::with_capacity(route.filters.mirrors.len());
        for mirror in &route.filters.mirrors {
            let cluster = self.cluster(&mirror.cluster, &Labels::new())?;
            mirrors.push(Mirror { cluster, share: mirror.share, suffix: mirror.suffix });
        }
        let filters = Filters::new(&route.filters, self.filters, mirrors).map(Arc::new);
        let fallback = match &route.fallback {
            Some(fallback) => Some(Arc::new(self.fallback(fallback)?)),
            None => None,
        };
        let treatment = (route.treatment != config::Treatment::default()).then(|| Arc::new(route.treatment.clone()));
        let (name, matches): (Arc<str>, _) = (route.name.as_str().into(), route.matches.clone());
        let paths = paths(&matches.path).into();
        let chosen = Arc::new(Chosen { name: Arc::clone(&name), origins: Arc::clone(&route.origins) });
        Some(Route { chosen, name, matches, paths, action, filters, fallback, treatment })
    }

    fn fallback(&mut self, told: &pillion_wire::resilience::Fallback) -> Option<Fallback> {
        let clusters = told.backends.iter().map(|backend| self.cluster(&backend.to_string(), &Labels::new()));
        let status = |status: u16| http::StatusCode::from_u16(status).ok();
        let response = told.response.as_ref();
        let response = response.and_then(|(code, body)| Some((status(*code)?, body.clone())));
        Some(Fallback { clusters: clusters.collect::<Option<_>>()?, response })
    }

    fn split(&mut self, split: &config::Split) -> Option<Split> {
        let mut choices = Vec::with_capacity(split.clusters.len());
        for weighted in &split.clusters {
            choices.push((weighted.weight, self.cluster(&weighted.name, &weighted.criteria)?, Changes::new(weighted)));
        }
        Split::changing(choices).map(|choices| choices.hashed_by(&split.hash, split.by_hash).lasting(split.lasts))
    }

    fn cluster(&mut self, name: &str, criteria: &Labels) -> Option<Arc<Cluster>> {
        let key = (name.to_owned(), criteria.clone());
        if let Some(cluster) = self.found.get(&key) {
            return Some(Arc::clone(cluster));
        }
        let cluster = self.catalog.part(name, criteria)?;
        self.found.insert(key, Arc::clone(&cluster));
        Some(cluster)
    }
}

/// As traces tell it (OpenTelemetry, `http.route`).
fn paths(path: &PathMatch) -> String {
    match path {
        PathMatch::Any => "/*".to_owned(),
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(prefix) => format!("{prefix}*"),
        PathMatch::SegmentPrefix(prefix) => format!("{prefix}/*"),
        PathMatch::Regex(pattern) => pattern.as_str().to_owned(),
    }
}
