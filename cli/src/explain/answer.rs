//! The answer: the way of the request through what the control plane would serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use pillion_control_plane::core::view::WorkloadView;
use pillion_control_plane::core::workload::Access;
use pillion_control_plane::source::Severity;
use pillion_control_plane::xds::catalog::{Catalog, Lookup, Viewer};
use pillion_control_plane::xds::dialect::Dialect;
use pillion_control_plane::xds::kind::Kind;
use pillion_proxy::config::{Action, Health, OutboundListener, Override, Route, RouteConfig, RouteSource};
use pillion_proxy::discovery::{self, Config, xds::translate};
use pillion_proxy::route::{authority, best_domain, matches, mismatch};
use pillion_wire::mesh::INVALID_BACKEND;
use pillion_wire::origin::{Origin, Origins};
use pillion_wire::spiffe::{SpiffeId, TrustDomain};
use serde::Serialize;

use super::ask::Question;
use super::quote::Quote;

/// Sections that are about a route's requests.
const OF_ROUTES: [&str; 7] =
    ["timeouts", "retries", "faults", "directResponse", "fallback", "sessionPersistence", "split"];
/// Sections that are about a cluster.
const OF_CLUSTERS: [&str; 6] = ["limits", "breaker", "outlierDetection", "healthChecks", "loadBalancing", "subsets"];
/// Sections that the servers' sidecars keep.
const OF_SERVERS: [&str; 3] = ["rateLimits", "globalRateLimit", "loadShedding"];

/// What would become of the request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Answer {
    /// The folder that it was found in.
    pub(super) documents: String,
    pub(super) from: String,
    pub(super) destination: String,
    /// The Service.
    pub(super) service: Option<Quote>,
    /// The route that is chosen.
    pub(super) route: Option<Chosen>,
    /// The others, in the order in which they are looked at.
    pub(super) others: Vec<Other>,
    /// What is done to the request besides.
    pub(super) filters: Vec<String>,
    pub(super) backends: Vec<Backend>,
    /// Policies that hold on the way, by section.
    pub(super) policies: BTreeMap<String, Quote>,
    /// What the servers' sidecars say.
    pub(super) servers: Vec<Server>,
    /// Reason code of what the caller gets; `answered` by an application.
    pub(super) reason: &'static str,
    /// The same in words.
    pub(super) verdict: String,
    /// Objects that are refused, and thus not in all this.
    pub(super) refused: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) origin: Option<Quote>,
}

#[derive(Debug, Serialize)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) line: Option<String>,
    /// Why it does not match; `None`: it does, but another comes first.
    pub(super) mismatch: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub(super) cluster: String,
    pub(super) per_cent: f64,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) policies: BTreeMap<String, Quote>,
}

#[derive(Debug, Serialize)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) identity: Option<String>,
    pub(super) usable: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Server {
    pub(super) workload: String,
    pub(super) port: u16,
    /// Reason code of a refusal; `None`: it is let in.
    pub(super) refuses: Option<&'static str>,
    pub(super) origin: Option<Quote>,
    pub(super) policies: BTreeMap<String, Quote>,
}

impl Answer {
    /// Would an application see it?
    pub(super) fn reaches_an_application(&self) -> bool {
        self.reason == "answered"
    }

    fn ends(mut self, reason: &'static str, verdict: impl Into<String>) -> Self {
        (self.reason, self.verdict) = (reason, verdict.into());
        self
    }
}

/// Finds it.
pub(super) fn find(question: &Question, dir: &Path, trust_domain: TrustDomain) -> anyhow::Result<Answer> {
    let (catalog, problems) = pillion_control_plane::check::catalog(dir, trust_domain.clone())?;
    let refused = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let caller = Caller::new(question, catalog, trust_domain)?;
    let mut answer = Answer {
        documents: dir.display().to_string(),
        from: caller.name.clone(),
        destination: question.destination.to_string(),
        refused: refused.map(ToString::to_string).collect(),
        ..Answer::default()
    };
    if question.from.is_none() {
        return from_outside(question, dir, &caller, answer);
    }
    let Some(listener) = caller.listener(question)? else {
        let why = format!("the control plane knows no {}", question.destination);
        return Ok(answer.ends("unknown_destination", why));
    };
    answer.service = listener.origins.owner.as_ref().map(|owner| Quote::of(dir, owner));
    let routes = match &listener.http {
        None => return Ok(answer.ends("wrong_protocol", format!("{} takes byte streams only", question.destination))),
        Some(RouteSource::Inline(routes)) => routes.clone(),
        Some(RouteSource::Named(name)) => match caller.resource(Kind::Route, discovery::Kind::Route, name)? {
            Some(Config::Route(routes)) => routes,
            _ => bail!("the control plane has no routes of {name}"),
        },
    };
    let Some(route) = select(&routes, question, &mut answer) else {
        return Ok(answer.ends("no_route", format!("no rule of {} matches: 404", question.destination)));
    };
    let origin = route.origins.rule.as_ref().or(route.origins.owner.as_ref());
    answer.route = Some(Chosen { name: route.name.clone(), origin: origin.map(|origin| Quote::of(dir, origin)) });
    answer.policies = quotes(dir, &route.origins.sections, &OF_ROUTES);
    answer.filters = filters(&route);
    follow(&caller, dir, &route, answer)
}

/// Who calls, and what the control plane tells them.
struct Caller {
    name: String,
    viewer: Viewer,
    catalog: Catalog,
}

impl Caller {
    fn new(question: &Question, catalog: Catalog, trust_domain: TrustDomain) -> anyhow::Result<Self> {
        let (name, namespace, account) = match &question.from {
            None => ("outside".to_owned(), "default".to_owned(), "default".to_owned()),
            Some((namespace, name)) => {
                let fits = |view: &&std::sync::Arc<WorkloadView>| {
                    view.name.name == *name && namespace.as_ref().is_none_or(|wanted| view.name.namespace == *wanted)
                };
                let found: Vec<_> = catalog.mesh().workloads().filter(fits).collect();
                let [only] = found.as_slice() else {
                    let all: Vec<_> = catalog.mesh().workloads().map(|view| view.name.to_string()).collect();
                    let how_many = if found.is_empty() { "no" } else { "more than one" };
                    bail!("there is {how_many} Workload {name} in the mesh; there are {}", all.join(", "));
                };
                (only.name.to_string(), only.name.namespace.clone(), only.service_account.clone())
            }
        };
        let viewer = Viewer {
            identity: SpiffeId::new(&trust_domain, &namespace, &account)?,
            dialect: Dialect::Pillion,
            workload: question.from.as_ref().map(|(_, name)| name.clone()),
            zone: None,
            outbound_address: None,
        };
        Ok(Self { name, viewer, catalog })
    }

    /// What the sidecar makes of a resource.
    fn resource(&self, kind: Kind, of_proxy: discovery::Kind, name: &str) -> anyhow::Result<Option<Config>> {
        let Lookup::Found(found) = self.catalog.find(kind, name, &self.viewer) else { return Ok(None) };
        let config = translate::resource(of_proxy, name, &found.body());
        config.map(Some).with_context(|| format!("the sidecar refuses what the control plane says of {name}"))
    }

    fn listener(&self, question: &Question) -> anyhow::Result<Option<OutboundListener>> {
        let name = question.destination.to_string();
        match self.resource(Kind::Listener, discovery::Kind::Listener, &name)? {
            Some(Config::Outbound(listener)) => Ok(Some(listener)),
            _ => Ok(None),
        }
    }
}

/// The first rule that matches, as the sidecar finds it; and what is to be said of the others.
fn select(routes: &RouteConfig, question: &Question, answer: &mut Answer) -> Option<Route> {
    let request = &question.request;
    let domains = routes.virtual_hosts.iter().map(|host| host.domains.as_slice());
    let host = routes.virtual_hosts.get(best_domain(domains, &authority(request))?)?;
    let chosen = host.routes.iter().position(|route| matches(&route.matches, request));
    for (at, route) in host.routes.iter().enumerate().filter(|(at, _)| Some(*at) != chosen) {
        let line = route.origins.rule.as_ref().and_then(Origin::place);
        debug_assert!(chosen.is_some_and(|chosen| chosen < at) || mismatch(&route.matches, request).is_some());
        answer.others.push(Other { name: route.name.clone(), line, mismatch: mismatch(&route.matches, request) });
    }
    host.routes.get(chosen?).cloned()
}

fn filters(route: &Route) -> Vec<String> {
    let mut said = Vec::new();
    said.extend(route.filters.path.as_ref().map(|_| "the path is rewritten".to_owned()));
    said.extend(route.filters.mirrors.iter().map(|mirror| format!("it is mirrored to {}", mirror.cluster)));
    said.extend(route.filters.overrides.iter().filter_map(|(_, own)| match own {
        Override::Disabled => None,
        Override::Cors(_) => Some("CORS".to_owned()),
        Override::Fault(fault) => Some(match &fault.abort {
            Some(_) => "a share of the requests fails on purpose (fault)".to_owned(),
            None => "a share of the requests is held back on purpose".to_owned(),
        }),
        Override::Session(_) => Some("sessions stay on their endpoint".to_owned()),
    }));
    if let Action::Forward(split) = &route.action {
        let changes = split.clusters.iter().any(|cluster| !cluster.headers.request.is_empty());
        said.extend(changes.then(|| "header fields of the request are changed".to_owned()));
        let renamed = split.clusters.iter().find_map(|cluster| cluster.authority.as_ref());
        said.extend(
            renamed.map(|host| format!("the host is told that it is {}", String::from_utf8_lossy(host.as_bytes()))),
        );
    }
    said
}

/// Where the chosen route leads.
fn follow(caller: &Caller, dir: &Path, route: &Route, mut answer: Answer) -> anyhow::Result<Answer> {
    let split = match &route.action {
        Action::Redirect(redirect) => {
            let why = format!("the rule sends the client elsewhere: {}", redirect.status);
            return Ok(answer.ends("redirect", why));
        }
        Action::DirectResponse { status, .. } => {
            return Ok(answer.ends("direct_response", format!("the policy answers itself: {status}")));
        }
        Action::Forward(split) => split,
    };
    let total: f64 = split.clusters.iter().map(|cluster| f64::from(cluster.weight.get())).sum();
    for weighted in &split.clusters {
        let per_cent = f64::from(weighted.weight.get()) / total * 100.0;
        answer.backends.push(backend(caller, dir, &weighted.name, per_cent, &route.origins)?);
    }
    let fallbacks = route.fallback.iter().flat_map(|fallback| &fallback.backends);
    for name in fallbacks {
        answer.backends.push(backend(caller, dir, &name.to_string(), 0.0, &route.origins)?);
    }
    for endpoint in answer.backends.iter().flat_map(|backend| &backend.endpoints) {
        answer.servers.extend(server(caller, dir, endpoint, true));
    }
    let named: Vec<_> = answer.backends.iter().filter(|backend| backend.cluster != INVALID_BACKEND).collect();
    let usable = named.iter().flat_map(|backend| &backend.endpoints).filter(|endpoint| endpoint.usable).count();
    let is_external = named.iter().any(|backend| backend.endpoints.is_empty() && is_by_name(caller, &backend.cluster));
    if named.is_empty() {
        return Ok(answer.ends("invalid_backend", "no backend of the rule exists or may be used: 500"));
    }
    if let Some(response) = route.fallback.as_ref().and_then(|fallback| fallback.response.as_ref())
        && usable == 0
    {
        return Ok(answer.ends("no_healthy_upstream", format!("nobody is there; the policy answers {}", response.0)));
    }
    if usable == 0 && !is_external {
        return Ok(answer.ends("no_healthy_upstream", "the backend has no endpoint: 503"));
    }
    let share = answer.backends.iter().find(|backend| backend.cluster == INVALID_BACKEND);
    let but = share.map_or_else(String::new, |bad| format!("; {:.0} % get 500 (invalid_backend)", bad.per_cent));
    Ok(answer.ends("answered", format!("an application answers{but}")))
}

fn is_by_name(caller: &Caller, cluster: &str) -> bool {
    let found = caller.resource(Kind::Cluster, discovery::Kind::Cluster, cluster);
    matches!(found, Ok(Some(Config::Cluster(cluster))) if cluster.dns.is_some())
}

fn backend(caller: &Caller, dir: &Path, name: &str, per_cent: f64, origins: &Origins) -> anyhow::Result<Backend> {
    let config = match caller.resource(Kind::Cluster, discovery::Kind::Cluster, name)? {
        Some(Config::Cluster(cluster)) => Some(cluster),
        _ => None,
    };
    let endpoints = match config.as_ref().map(|config| &config.endpoints) {
        Some(endpoints) if config.as_ref().is_some_and(|config| config.dns.is_none()) => {
            caller.resource(Kind::Endpoints, discovery::Kind::Endpoints, endpoints)?
        }
        _ => None,
    };
    let localities = match endpoints {
        Some(Config::Endpoints(endpoints)) => endpoints.localities,
        _ => Vec::new(),
    };
    let endpoints = localities.into_iter().flat_map(|locality| locality.endpoints).map(|endpoint| Endpoint {
        address: endpoint.address,
        identity: endpoint.mesh.map(|mesh| mesh.identity.to_string()),
        usable: endpoint.health == Health::Healthy,
    });
    let policies = quotes(dir, origins.backends.get(name).unwrap_or(&origins.sections), &OF_CLUSTERS);
    Ok(Backend { cluster: name.to_owned(), per_cent, endpoints: endpoints.collect(), policies })
}

/// What stands before the application at `endpoint`.
fn server(caller: &Caller, dir: &Path, endpoint: &Endpoint, has_identity: bool) -> Option<Server> {
    let views = caller.catalog.mesh().workloads();
    let mut found = views.filter_map(|view| {
        let port = view.ports.iter().find(|port| port.port == endpoint.address.port())?;
        (view.mesh_address.ip() == endpoint.address.ip()).then_some((view, port))
    });
    let (view, port) = found.next()?;
    let refuses = (port.access == Access::Strict && !has_identity).then_some("plaintext_refused");
    Some(Server {
        workload: view.name.to_string(),
        port: port.port,
        refuses,
        origin: port.origins.0.owner.as_ref().map(|owner| Quote::of(dir, owner)),
        policies: quotes(dir, &port.origins.0.sections, &OF_SERVERS),
    })
}

/// A caller without a sidecar dials the workload itself.
fn from_outside(question: &Question, dir: &Path, caller: &Caller, mut answer: Answer) -> anyhow::Result<Answer> {
    let destination = &question.destination;
    let Some(view) = caller.catalog.mesh().resolve(destination, "default") else {
        return Ok(answer.ends("unknown_destination", format!("there is no {destination}")));
    };
    answer.service = view.origins.0.owner.as_ref().map(|owner| Quote::of(dir, owner));
    let endpoints =
        view.endpoints.iter().map(|endpoint| Endpoint { address: endpoint.address, identity: None, usable: true });
    let endpoints: Vec<Endpoint> = endpoints.collect();
    answer.servers = endpoints.iter().filter_map(|endpoint| server(caller, dir, endpoint, false)).collect();
    let name = view.key.to_string();
    answer.backends.push(Backend { cluster: name, per_cent: 100.0, endpoints, policies: BTreeMap::new() });
    match answer.servers.iter().find(|server| server.refuses.is_some()) {
        Some(strict) => {
            let why = format!("{} takes no plaintext on port {}: 403", strict.workload, strict.port);
            Ok(answer.ends("plaintext_refused", why))
        }
        None => Ok(answer.ends("answered", "an application answers; no route and no policy of callers holds")),
    }
}

/// Those of the `sections` that are of these.
fn quotes(dir: &Path, sections: &BTreeMap<String, Origin>, of: &[&str]) -> BTreeMap<String, Quote> {
    let sections = sections.iter().filter(|(name, _)| of.contains(&name.as_str()));
    sections.map(|(name, origin)| (name.clone(), Quote::of(dir, origin))).collect()
}
