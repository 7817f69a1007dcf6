//! `TrafficPolicy`: how traffic to a Service, or that a route matches, is treated.
//!
//! A policy has sections. Each section is taken whole from one policy: that of the route before that of the
//! Service's port before that of the whole Service, of several for the same target the oldest (then by name).

mod direct_response;
mod faults;
mod global_rate_limit;
pub mod health;
mod load_balancing;
mod retries;
mod session;
mod split;
mod subsets;
mod timeouts;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use pillion_wire::health::HealthCheck;
use pillion_wire::load_shedding::LoadShedding;
use pillion_wire::name::ServicePort;
use pillion_wire::origin::Origin;
use pillion_wire::resilience::{Breaker, Fallback, Limits, Outlier};

use super::{
    mesh::{Finding, Objects, Subject},
    origin::Places,
    protocol::Protocol,
    route::{Route, RouteKind},
    service::{Name, Port, Service},
};

pub use direct_response::DirectResponse;
pub use faults::{Abort, Faults, Share};
pub use global_rate_limit::{Descriptor, Entry, GlobalRateLimit, Unit, Value};
pub use load_balancing::{Algorithm, HashOn, LoadBalancing, SlowStart, Zones};
use pillion_wire::rate_limit::RateLimits;
pub use retries::{Budget, CONDITIONS, Retries, RuleRetry};
pub use session::SessionPersistence;
pub use split::StickySplit;
pub use subsets::Subset;
pub use timeouts::Timeouts;

/// A policy object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficPolicy {
    /// Its name.
    pub name: Name,
    /// `metadata.creationTimestamp` where there is one: RFC 3339, so it sorts as text.
    pub created: Option<String>,
    /// What it applies to, all in its own namespace.
    pub targets: Vec<Target>,
    /// What it says.
    pub policy: Policy,
}

/// What a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Traffic to a Service, or to its port of that name.
    Service {
        /// The Service.
        name: String,
        /// The port's name; all ports when there is none.
        section: Option<String>,
    },
    /// What the rules of a route match.
    Route {
        /// Its kind.
        kind: RouteKind,
        /// Its name.
        name: String,
    },
}

/// The sections of a policy; those that are `None` say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How long things may take.
    pub timeouts: Option<Timeouts>,
    /// How many requests workloads take.
    pub rate_limits: Option<RateLimits>,
    /// How many requests all workloads together take.
    pub global_rate_limit: Option<Arc<GlobalRateLimit>>,
    /// How an endpoint is picked.
    pub load_balancing: Option<LoadBalancing>,
    /// When workloads take no more requests.
    pub load_shedding: Option<LoadShedding>,
    /// What goes wrong on purpose.
    pub faults: Option<Faults>,
    /// What is answered without asking the application.
    pub direct_response: Option<DirectResponse>,
    /// How much a caller may have under way.
    pub limits: Option<Limits>,
    /// When an endpoint is left alone.
    pub breaker: Option<Breaker>,
    /// When an endpoint does worse than the others.
    pub outlier: Option<Outlier>,
    /// How endpoints are asked whether they are well.
    pub health: Option<HealthCheck>,
    /// What happens to requests that no endpoint can take.
    pub fallback: Option<Fallback>,
    /// When requests are sent again.
    pub retries: Option<Retries>,
    /// What keeps requests on the endpoint that they went to before.
    pub session: Option<SessionPersistence>,
    /// Parts of a Service that routes may send to.
    pub subsets: Option<Vec<Subset>>,
    /// What keeps callers on one of a route's backends.
    pub split: Option<StickySplit>,
}

impl Policy {
    /// The sections that are there, as documents name them, and whether each may stand in a policy for a route.
    fn sections(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let sections = [
            ("timeouts", self.timeouts.is_some(), true),
            ("retries", self.retries.is_some(), true),
            ("rateLimits", self.rate_limits.is_some(), false),
            ("globalRateLimit", self.global_rate_limit.is_some(), false),
            ("loadBalancing", self.load_balancing.is_some(), false),
            ("loadShedding", self.load_shedding.is_some(), false),
            ("faults", self.faults.is_some(), true),
            ("directResponse", self.direct_response.is_some(), true),
            ("limits", self.limits.is_some(), false),
            ("breaker", self.breaker.is_some(), false),
            ("outlierDetection", self.outlier.is_some(), false),
            ("healthChecks", self.health.is_some(), false),
            ("fallback", self.fallback.is_some(), true),
            ("sessionPersistence", self.session.is_some(), true),
            ("subsets", self.subsets.is_some(), false),
            ("split", self.split.is_some(), true),
        ];
        sections.into_iter().filter_map(|(name, is_there, fits_route)| is_there.then_some((name, fits_route)))
    }

    /// The fields, in sections that may stand in a policy for a route, that may not.
    fn of_services(&self) -> impl Iterator<Item = &'static str> {
        let timeouts = self.timeouts.as_ref();
        let retries = self.retries.as_ref();
        [
            ("timeouts.connect", timeouts.is_some_and(|timeouts| timeouts.connect.is_some())),
            ("timeouts.idle", timeouts.is_some_and(|timeouts| timeouts.idle.is_some())),
            ("timeouts.connectionAge", timeouts.is_some_and(|timeouts| timeouts.connection_age.is_some())),
            ("retries.budget", retries.is_some_and(|retries| retries.budget.is_some())),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
    }

    /// These sections, and those of `other` where there are none.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            timeouts: self.timeouts.clone().or_else(|| other.timeouts.clone()),
            rate_limits: self.rate_limits.clone().or_else(|| other.rate_limits.clone()),
            global_rate_limit: self.global_rate_limit.clone().or_else(|| other.global_rate_limit.clone()),
            load_balancing: self.load_balancing.clone().or_else(|| other.load_balancing.clone()),
            load_shedding: self.load_shedding.clone().or_else(|| other.load_shedding.clone()),
            faults: self.faults.clone().or_else(|| other.faults.clone()),
            direct_response: self.direct_response.clone().or_else(|| other.direct_response.clone()),
            limits: self.limits.clone().or_else(|| other.limits.clone()),
            breaker: self.breaker.clone().or_else(|| other.breaker.clone()),
            outlier: self.outlier.clone().or_else(|| other.outlier.clone()),
            health: self.health.clone().or_else(|| other.health.clone()),
            fallback: self.fallback.clone().or_else(|| other.fallback.clone()),
            retries: self.retries.clone().or_else(|| other.retries.clone()),
            session: self.session.clone().or_else(|| other.session.clone()),
            subsets: self.subsets.clone().or_else(|| other.subsets.clone()),
            split: self.split.clone().or_else(|| other.split.clone()),
        }
    }
}

/// The policies of a mesh by what they apply to, in order of precedence.
#[derive(Debug, Default)]
pub(super) struct Policies<'a> {
    places: Option<&'a Places>,
    services: HashMap<Name, Vec<(Option<&'a str>, &'a TrafficPolicy)>>,
    routes: HashMap<(RouteKind, Name), Vec<&'a TrafficPolicy>>,
}

impl<'a> Policies<'a> {
    /// Sorts the policies by target, and reports those without effect.
    pub(super) fn new(objects: &'a Objects, findings: &mut Vec<Finding>) -> Self {
        let mut all: Vec<&TrafficPolicy> = objects.policies.values().map(AsRef::as_ref).collect();
        all.sort_by_key(|policy| (policy.created.is_none(), policy.created.as_deref(), &policy.name));
        let mut policies = Self { places: Some(&objects.places), ..Self::default() };
        for policy in all {
            findings.extend(without_backend(policy, objects));
            findings.extend(without_rate_limit_service(policy, objects));
            for (index, target) in policy.targets.iter().enumerate() {
                if let Some(reason) = policies.attach(policy, target, objects) {
                    findings.push(Finding {
                        subject: Subject::Policy(policy.name.clone()),
                        path: format!("spec.targetRefs[{index}]"),
                        reason,
                        refused: false,
                    });
                }
            }
        }
        policies
    }

    /// What is odd about it, if anything.
    fn attach(&mut self, policy: &'a TrafficPolicy, target: &'a Target, objects: &Objects) -> Option<String> {
        let own = |name: &str| Name::new(policy.name.namespace.clone(), name);
        match target {
            Target::Service { name, section } => {
                let (name, section) = (own(name), section.as_deref());
                let Some(service) = objects.services.get(&name) else {
                    return Some(format!("there is no Service {name}: the policy has no effect on it"));
                };
                if section.is_some_and(|section| service.ports.iter().all(|port| port.name.as_deref() != Some(section)))
                {
                    return Some(format!("Service {name} has no such port: the policy has no effect on it"));
                }
                let there = self.services.entry(name).or_default();
                let earlier = there.iter().filter(|(other, _)| *other == section).map(|(_, earlier)| *earlier);
                let conflict = conflict(policy, earlier);
                there.push((section, policy));
                conflict
                    .or_else(|| without_requests(policy, service, section))
                    .or_else(|| without_sidecars(policy, service))
                    .or_else(|| health::unfit(policy, service, section))
            }
            Target::Route { kind, name } => {
                let key = (*kind, own(name));
                if !objects.routes.contains_key(&key) {
                    return Some(format!("there is no {} {}: the policy has no effect on it", kind.name(), key.1));
                }
                let sections = policy.policy.sections().filter(|(_, fits)| !fits).map(|(section, _)| section);
                let unfit: Vec<&str> = sections.chain(policy.policy.of_services()).collect();
                let there = self.routes.entry(key).or_default();
                let conflict = conflict(policy, there.iter().copied());
                there.push(policy);
                if unfit.is_empty() {
                    return conflict;
                }
                Some(format!("{} concerns a whole Service: it has no effect on a route", unfit.join(", ")))
            }
        }
    }

    /// What holds for all traffic to `port`.
    pub(super) fn of_port(&self, service: &Service, port: &Port) -> Policy {
        let there = self.services.get(&service.name).map_or(&[][..], Vec::as_slice);
        let of_port = there.iter().filter(|(section, _)| section.is_some() && *section == port.name.as_deref());
        let of_all = there.iter().filter(|(section, _)| section.is_none());
        of_port.chain(of_all).fold(Policy::default(), |all, (_, policy)| all.or(&policy.policy))
    }

    /// Where the sections come from that hold for all traffic to `port`.
    pub(super) fn sections_of_port(&self, service: &Service, port: &Port) -> BTreeMap<String, Origin> {
        let there = self.services.get(&service.name).map_or(&[][..], Vec::as_slice);
        let of_port = there.iter().filter(|(section, _)| section.is_some() && *section == port.name.as_deref());
        let of_all = there.iter().filter(|(section, _)| section.is_none());
        self.origins(of_port.chain(of_all).map(|(_, policy)| *policy), BTreeMap::new())
    }

    /// Where those come from that hold for requests that `route` matches, where `port` holds for all.
    pub(super) fn sections_of_route(&self, route: &Route, port: &BTreeMap<String, Origin>) -> BTreeMap<String, Origin> {
        let there = self.routes.get(&(route.kind, route.name.clone())).map_or(&[][..], Vec::as_slice);
        self.origins(there.iter().copied(), port.clone())
    }

    fn origins<'b>(
        &self,
        policies: impl Iterator<Item = &'b TrafficPolicy>,
        mut rest: BTreeMap<String, Origin>,
    ) -> BTreeMap<String, Origin> {
        let Some(places) = self.places else { return rest };
        let mut found = BTreeMap::new();
        for policy in policies {
            for (section, _) in policy.policy.sections() {
                let origin = || places.origin("TrafficPolicy", &policy.name, format!("spec.{section}"));
                found.entry(section.to_owned()).or_insert_with(origin);
            }
        }
        rest.extend(found);
        rest
    }

    /// What holds for requests to `port` that `route` matches.
    pub(super) fn of_route(&self, route: &Route, port: &Policy) -> Policy {
        let there = self.routes.get(&(route.kind, route.name.clone())).map_or(&[][..], Vec::as_slice);
        there.iter().fold(Policy::default(), |all, policy| all.or(&policy.policy)).or(port)
    }
}

/// Backends to fall back on that do not exist.
fn without_backend(policy: &TrafficPolicy, objects: &Objects) -> Vec<Finding> {
    let backends = policy.policy.fallback.iter().flat_map(|fallback| &fallback.backends);
    let is_there = |backend: &ServicePort| {
        let service = objects.services.get(&Name::new(&backend.namespace, &backend.service));
        service.is_some_and(|service| service.ports.iter().any(|port| port.port == backend.port))
    };
    let missing = backends.enumerate().filter(|(_, backend)| !is_there(backend));
    let finding = |(index, backend): (usize, &ServicePort)| Finding {
        subject: Subject::Policy(policy.name.clone()),
        path: format!("spec.fallback.backends[{index}]"),
        reason: format!("there is no {backend}: it is passed over"),
        refused: false,
    };
    missing.map(finding).collect()
}

/// A rate-limit service that does not exist, or cannot be asked: what then becomes of requests the policy says.
fn without_rate_limit_service(policy: &TrafficPolicy, objects: &Objects) -> Option<Finding> {
    let limit = policy.policy.global_rate_limit.as_ref()?;
    let asked = &limit.service;
    let service = objects.services.get(&Name::new(&asked.namespace, &asked.service));
    let port = service.and_then(|service| service.ports.iter().find(|port| port.port == asked.port));
    let problem = match port.map(|port| port.app_protocol) {
        None => format!("there is no {asked}"),
        Some(Some(Protocol::Http | Protocol::Tcp | Protocol::Tls)) => format!("the appProtocol of {asked} is not grpc"),
        Some(_) => return None,
    };
    let fate = if limit.deny_on_failure { "refused" } else { "let through" };
    Some(Finding {
        subject: Subject::Policy(policy.name.clone()),
        path: "spec.globalRateLimit.service".to_owned(),
        reason: format!("{problem}: every request is {fate}"),
        refused: false,
    })
}

/// Which sections of `policy` concern requests, where nothing but byte streams is carried.
fn without_requests(policy: &TrafficPolicy, service: &Service, section: Option<&str>) -> Option<String> {
    let said = [
        ("faults", policy.policy.faults.is_some()),
        ("directResponse", policy.policy.direct_response.is_some()),
        ("sessionPersistence", policy.policy.session.is_some()),
        ("globalRateLimit", policy.policy.global_rate_limit.is_some()),
        ("loadShedding", policy.policy.load_shedding.is_some()),
        ("rateLimits", policy.policy.rate_limits.is_some()),
        ("retries", policy.policy.retries.is_some()),
    ];
    let said: Vec<&str> = said.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
    let mut ports = service.ports.iter().filter(|port| section.is_none() || port.name.as_deref() == section);
    let has_none = ports.all(|port| port.app_protocol.is_some_and(|protocol| !protocol.carries_http()));
    (has_none && !said.is_empty())
        .then(|| format!("no such port carries requests: {} has no effect on it", said.join(", ")))
}

/// Which sections of `policy` are for the sidecars of workloads, where there are none.
fn without_sidecars(policy: &TrafficPolicy, service: &Service) -> Option<String> {
    let said = [
        ("rateLimits", policy.policy.rate_limits.is_some()),
        ("globalRateLimit", policy.policy.global_rate_limit.is_some()),
        ("loadShedding", policy.policy.load_shedding.is_some()),
    ];
    let said: Vec<&str> = said.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
    (service.external.is_some() && !said.is_empty()).then(|| {
        format!("the Service is a name outside the mesh, with no sidecar there: {} has no effect", said.join(", "))
    })
}

/// Which sections of `policy` an earlier one has said already.
fn conflict<'a>(policy: &TrafficPolicy, earlier: impl Iterator<Item = &'a TrafficPolicy>) -> Option<String> {
    let mut lost = Vec::new();
    for earlier in earlier {
        for (section, _) in policy.policy.sections() {
            if earlier.policy.sections().any(|(other, _)| other == section) {
                lost.push(format!("{section} (of {})", earlier.name));
            }
        }
    }
    (!lost.is_empty()).then(|| format!("an older policy goes before this one: {}", lost.join(", ")))
}
