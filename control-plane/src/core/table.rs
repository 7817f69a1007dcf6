//! Routes put together per port of a Service: who is attached, in which order,
//! and which backends really exist.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    mesh::{Finding, Objects, Subject, service_port},
    origin::Unhashed,
    policy::{HashOn, Policies, Policy},
    protocol::Protocol,
    route::{Backend, Parent, Ranked, Route, RouteKind},
    service::{Name, Port, Service},
    view::{RouteEntry, Share, TlsEntry},
};
use pillion_wire::name::ServicePort;
use pillion_wire::origin::{Origin, Origins};

/// The routes of all Services.
pub(super) struct Tables<'a> {
    objects: &'a Objects,
    attached: HashMap<Name, Vec<(&'a Route, &'a Parent)>>,
    existing: HashSet<ServicePort>,
}

impl<'a> Tables<'a> {
    /// Sorts the routes by parent, and reports parents and backends that are missing.
    pub(super) fn new(objects: &'a Objects, policies: &Policies<'_>, findings: &mut Vec<Finding>) -> Self {
        let mut existing = HashSet::new();
        for service in objects.services.values() {
            for port in &service.ports {
                let Ok(key) = service_port(service, port) else { continue };
                let subsets = policies.of_port(service, port).subsets.unwrap_or_default();
                existing.extend(subsets.iter().filter_map(|subset| key.clone().of_subset(&subset.name).ok()));
                existing.insert(key);
            }
        }
        let mut tables = Self { objects, attached: HashMap::new(), existing };
        for route in objects.routes.values() {
            tables.attach(route, findings);
            tables.check_backends(route, findings);
        }
        tables
    }

    /// The requests of `port`, for which `policy` holds, when any route is attached to it.
    pub(super) fn http(
        &self,
        service: &Service,
        port: &Port,
        policies: &Policies<'_>,
        policy: &Policy,
        of_port: &Origins,
    ) -> Option<Vec<RouteEntry>> {
        let mut ranked: Vec<Ranked<'_>> = self
            .routes(service, port)
            .filter(|route| matches!(route.kind, RouteKind::Http | RouteKind::Grpc))
            .flat_map(|route| {
                route.rules.iter().enumerate().flat_map(move |(rule, body)| {
                    body.matches.iter().map(move |matched| Ranked { route, rule, matched })
                })
            })
            .collect();
        if ranked.is_empty() {
            return None;
        }
        ranked.sort_by(Ranked::precedence);
        let entries = ranked.into_iter().map(|ranked| {
            let rule = ranked.route.rules.get(ranked.rule);
            let filters = rule.map(|rule| rule.filters.clone()).unwrap_or_default();
            let named = rule.and_then(|rule| rule.name.clone()).unwrap_or_else(|| ranked.rule.to_string());
            let mirrors = filters.mirrors.iter();
            let of_route = policies.of_route(ranked.route, policy);
            let shares = self.shares(ranked.route, rule.map_or(&[][..], |rule| &rule.backends), policies);
            let mut origins = self.origins(ranked.route, ranked.rule, policies, of_port);
            self.add_backends(shares.iter().filter_map(|share| share.target.as_ref()), policies, &mut origins);
            self.add_fallbacks(&of_route, policies, &mut origins);
            RouteEntry {
                origins: Unhashed(origins),
                name: format!("{}/{}/{named}", ranked.route.kind.name(), ranked.route.name),
                matched: ranked.matched.clone(),
                policy: rule.map_or_else(|| of_route.clone(), |rule| of_route.clone().for_rule(rule)),
                mirrors: mirrors
                    .filter_map(|mirror| Some((self.usable(ranked.route, &mirror.backend).ok()?, mirror.per_million)))
                    .collect(),
                filters,
                shares,
            }
        });
        Some(entries.collect())
    }

    /// The port of a Service in its document.
    pub(super) fn owner(&self, service: &Service, port: &Port) -> Origin {
        let index = service.ports.iter().position(|own| own.port == port.port).unwrap_or_default();
        self.objects.places.origin("Service", &service.name, format!("spec.ports[{index}]"))
    }

    /// The rule that byte streams of `port` follow.
    pub(super) fn tcp_rule(&self, service: &Service, port: &Port) -> Option<Origin> {
        let route = self.routes(service, port).filter(|route| route.kind == RouteKind::Tcp).min_by_key(age)?;
        Some(self.objects.places.origin(route.kind.name(), &route.name, "spec.rules[0]".to_owned()))
    }

    /// What the requests of a rule are treated by: what it says itself goes before what policies say.
    fn origins(&self, route: &Route, index: usize, policies: &Policies<'_>, of_port: &Origins) -> Origins {
        let origin = |field: String| self.objects.places.origin(route.kind.name(), &route.name, field);
        let path = format!("spec.rules[{index}]");
        let mut sections = policies.sections_of_route(route, &of_port.sections);
        if let Some(rule) = route.rules.get(index) {
            let own = [
                ("timeouts", "timeouts", rule.request.is_some() || rule.backend_request.is_some()),
                ("retries", "retry", rule.retry.is_some()),
                ("sessionPersistence", "sessionPersistence", rule.session.is_some()),
            ];
            for (section, field, _) in own.into_iter().filter(|(.., is_there)| *is_there) {
                sections.insert(section.to_owned(), origin(format!("{path}.{field}")));
            }
        }
        Origins { owner: of_port.owner.clone(), rule: Some(origin(path)), sections, backends: BTreeMap::new() }
    }

    /// What holds for the clusters that traffic may go to.
    fn add_backends<'b>(
        &self,
        backends: impl Iterator<Item = &'b ServicePort>,
        policies: &Policies<'_>,
        origins: &mut Origins,
    ) {
        for backend in backends {
            let name = Name::new(&backend.namespace, &backend.service);
            let Some(service) = self.objects.services.get(&name) else { continue };
            let Some(port) = service.ports.iter().find(|port| port.port == backend.port) else { continue };
            origins.backends.insert(backend.to_string(), policies.sections_of_port(service, port));
        }
    }

    /// The same for those that traffic falls back on.
    pub(super) fn add_fallbacks(&self, policy: &Policy, policies: &Policies<'_>, origins: &mut Origins) {
        let backends = policy.fallback.iter().flat_map(|fallback| &fallback.backends);
        self.add_backends(backends, policies, origins);
    }

    /// The byte streams of `port`, when a `TCPRoute` is attached to it: the oldest.
    pub(super) fn tcp(&self, service: &Service, port: &Port, policies: &Policies<'_>) -> Option<Vec<Share>> {
        let route = self.routes(service, port).filter(|route| route.kind == RouteKind::Tcp).min_by_key(age)?;
        Some(self.shares(route, &route.rules.first()?.backends, policies))
    }

    /// The TLS connections of `port` when `TLSRoute`s are attached to it. A name that several of them claim is the
    /// oldest one's.
    pub(super) fn tls(&self, service: &Service, port: &Port, policies: &Policies<'_>) -> Vec<TlsEntry> {
        let all = [String::new()];
        let mut routes: Vec<&Route> = self.routes(service, port).filter(|route| route.kind == RouteKind::Tls).collect();
        routes.sort_by_key(age);
        let mut claimed: HashSet<&str> = HashSet::new();
        let mut entries = Vec::with_capacity(routes.len());
        for route in routes {
            let Some(rule) = route.rules.first() else { continue };
            let names = if route.hostnames.is_empty() { &all[..] } else { &route.hostnames };
            let free: Vec<&String> = names.iter().filter(|name| claimed.insert(name.as_str())).collect();
            if free.is_empty() {
                continue;
            }
            entries.push(TlsEntry {
                name: format!("{}/{}", route.kind.name(), route.name),
                server_names: free.into_iter().filter(|name| !name.is_empty()).cloned().collect(),
                shares: self.shares(route, &rule.backends, policies),
            });
        }
        entries
    }

    /// Each route that is attached to `port`, once.
    fn routes(&self, service: &Service, port: &Port) -> impl Iterator<Item = &'a Route> {
        let mut routes: Vec<&'a Route> = Vec::new();
        let attached = self.attached.get(&service.name);
        for (route, parent) in attached.map_or(&[][..], Vec::as_slice) {
            if covers(parent, port) && !routes.iter().any(|seen| std::ptr::eq(*seen, *route)) {
                routes.push(route);
            }
        }
        routes.into_iter()
    }

    /// The backends with a weight. Empty when none of them can be used.
    fn shares(&self, route: &Route, backends: &[Backend], policies: &Policies<'_>) -> Vec<Share> {
        let shares: Vec<Share> = backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .map(|backend| {
                let target = self.usable(route, backend).ok();
                let hash_on = if target.is_some() { self.hash_on(backend, policies) } else { Vec::new() };
                Share { target, weight: backend.weight, hash_on, filters: backend.filters.clone() }
            })
            .collect();
        if shares.iter().all(|share| share.target.is_none()) {
            return Vec::new();
        }
        shares
    }

    /// What keeps the callers of a backend on one endpoint.
    fn hash_on(&self, backend: &Backend, policies: &Policies<'_>) -> Vec<HashOn> {
        let service = self.objects.services.get(&backend.service);
        let port = service.and_then(|service| service.ports.iter().find(|port| port.port == backend.port));
        let policy = service.zip(port).map(|(service, port)| policies.of_port(service, port));
        policy.and_then(|policy| policy.load_balancing).map(|section| section.hash_on).unwrap_or_default()
    }

    fn usable(&self, route: &Route, backend: &Backend) -> Result<ServicePort, String> {
        let service = &backend.service;
        let foreign = service.namespace != route.name.namespace;
        if foreign && !self.objects.grants.iter().any(|grant| grant.permits(route.kind, &route.name.namespace, service))
        {
            return Err(format!(
                "no ReferenceGrant in namespace {} lets {}s of {} refer to Service {}",
                service.namespace,
                route.kind.name(),
                route.name.namespace,
                service.name,
            ));
        }
        if !self.objects.services.contains_key(service) {
            return Err(format!("there is no Service {service}"));
        }
        let key =
            ServicePort::new(&service.name, &service.namespace, backend.port).map_err(|error| error.to_string())?;
        if !self.existing.contains(&key) {
            return Err(format!("Service {service} has no port {}", backend.port));
        }
        let Some(subset) = &backend.subset else { return Ok(key) };
        let key = key.of_subset(subset).map_err(|error| error.to_string())?;
        if !self.existing.contains(&key) {
            return Err(format!("no TrafficPolicy gives port {} of Service {service} a subset {subset}", backend.port));
        }
        Ok(key)
    }

    fn attach(&mut self, route: &'a Route, findings: &mut Vec<Finding>) {
        for (index, parent) in route.parents.iter().enumerate() {
            let name = Name::new(route.name.namespace.clone(), parent.service.clone());
            let mut complain = |reason: String| {
                findings.push(Finding {
                    subject: Subject::Route(route.kind, route.name.clone()),
                    path: format!("spec.parentRefs[{index}]"),
                    reason,
                    refused: false,
                });
            };
            let Some(service) = self.objects.services.get(&name) else {
                complain(format!("there is no Service {name}: the route has no effect on it"));
                continue;
            };
            let mut ports = service.ports.iter().filter(|port| covers(parent, port)).peekable();
            if ports.peek().is_none() {
                complain(format!("Service {name} has no such port: the route has no effect on it"));
            } else if ports.all(|port| port.app_protocol.is_some_and(|it| !fits(route.kind, it))) {
                complain(format!(
                    "no such port of Service {name} carries what a {} is about: the route has no effect on it",
                    route.kind.name()
                ));
            }
            self.attached.entry(name).or_default().push((route, parent));
        }
    }

    fn check_backends(&self, route: &Route, findings: &mut Vec<Finding>) {
        for (rule_index, rule) in route.rules.iter().enumerate() {
            for mirror in &rule.filters.mirrors {
                if let Err(reason) = self.usable(route, &mirror.backend) {
                    findings.push(Finding {
                        subject: Subject::Route(route.kind, route.name.clone()),
                        path: format!("spec.rules[{rule_index}].filters[{}].requestMirror.backendRef", mirror.place),
                        reason: format!("{reason}: nothing is mirrored to it"),
                        refused: false,
                    });
                }
            }
            for (index, backend) in rule.backends.iter().enumerate() {
                if let Err(reason) = self.usable(route, backend) {
                    findings.push(Finding {
                        subject: Subject::Route(route.kind, route.name.clone()),
                        path: format!("spec.rules[{rule_index}].backendRefs[{index}]"),
                        reason: format!("{reason}: its share of the traffic fails"),
                        refused: false,
                    });
                }
            }
        }
    }
}

/// Routes that know their age come first, the oldest before; then by name.
fn age(route: &&Route) -> (bool, Option<String>, Name) {
    (route.created.is_none(), route.created.clone(), route.name.clone())
}

fn covers(parent: &Parent, port: &Port) -> bool {
    parent.port.is_none_or(|number| number == port.port)
        && parent.section.as_ref().is_none_or(|name| Some(name) == port.name.as_ref())
}

const fn fits(kind: RouteKind, protocol: Protocol) -> bool {
    match kind {
        RouteKind::Tcp | RouteKind::Tls => protocol.carries_tcp(),
        RouteKind::Http | RouteKind::Grpc => protocol.carries_http(),
    }
}
