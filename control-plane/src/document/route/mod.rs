//! `HTTPRoute`, `GRPCRoute`, `TCPRoute`, `TLSRoute` and `ReferenceGrant` of Gateway API, for
//! traffic inside the mesh: their parents are Services (GAMMA, GEP-1324).

use pillion_wire::{
    label::{is_label, is_subdomain},
    name::host_name,
};
use serde::Deserialize;

use super::{
    Issues, Metadata, accept,
    gateway::{BackendRef, GROUP, GrantSpec, GrpcRule, HttpRule, ParentRef, RouteSpec, StreamRule},
    path::FieldPath,
    tree::Node,
    typed::typed,
};
use crate::core::{
    filter::Filters,
    grant::Grant,
    route::{Backend, Match, Parent, Route, RouteKind, Rule},
    service::Name,
};

mod filters;
mod matches;
pub(super) mod session;
mod timing;

pub(super) use matches::headers as header_matches;

/// The greatest weight that Gateway API allows.
const MAX_WEIGHT: i64 = 1_000_000;

#[derive(Deserialize)]
struct Holder<S> {
    spec: S,
}

/// Reads an `HTTPRoute`.
pub(super) fn read_http(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Route> {
    let spec: RouteSpec<HttpRule> = read_spec(node, issues)?;
    let rules = spec.rules.into_iter().zip(rule_paths()).map(|(raw, path)| {
        let (request, backend_request) = timing::timeouts(raw.timeouts, &path.key("timeouts"), issues);
        let retry = timing::retry(raw.retry, &path.key("retry"), issues);
        let session = raw.session_persistence.map(|raw| session::read(raw, &path.key("sessionPersistence"), issues));
        let matches = matches::http(raw.matches, &path.key("matches"), issues);
        let at = path.key("filters");
        let filters = filters::of_rule(RouteKind::Http, raw.filters, &matches, metadata, &at, issues);
        let backends = match &filters.redirect {
            Some(_) => no_backends(raw.backend_refs.as_deref(), &path, issues),
            None => backends(RouteKind::Http, raw.backend_refs, metadata, &path, issues),
        };
        let name = rule_name(raw.name, &path, issues);
        Rule { name, matches, filters, backends, request, backend_request, retry, session }
    });
    let rules = rules.collect();
    finish(RouteKind::Http, metadata, (spec.parent_refs, spec.hostnames), rules, issues)
}

/// Reads a `GRPCRoute`.
pub(super) fn read_grpc(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Route> {
    let spec: RouteSpec<GrpcRule> = read_spec(node, issues)?;
    let rules = spec.rules.into_iter().zip(rule_paths()).map(|(raw, path)| {
        let session = raw.session_persistence.map(|raw| session::read(raw, &path.key("sessionPersistence"), issues));
        let matches = matches::grpc(raw.matches, &path.key("matches"), issues);
        let at = path.key("filters");
        let filters = filters::of_rule(RouteKind::Grpc, raw.filters, &matches, metadata, &at, issues);
        let backends = match &filters.redirect {
            Some(_) => no_backends(raw.backend_refs.as_deref(), &path, issues),
            None => backends(RouteKind::Grpc, raw.backend_refs, metadata, &path, issues),
        };
        let name = rule_name(raw.name, &path, issues);
        Rule { name, matches, filters, backends, request: None, backend_request: None, retry: None, session }
    });
    let rules = rules.collect();
    finish(RouteKind::Grpc, metadata, (spec.parent_refs, spec.hostnames), rules, issues)
}

/// Reads a `TCPRoute`.
pub(super) fn read_tcp(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Route> {
    let spec: RouteSpec<StreamRule> = read_spec(node, issues)?;
    let rules = stream_rules(RouteKind::Tcp, spec.rules, metadata, issues);
    finish(RouteKind::Tcp, metadata, (spec.parent_refs, spec.hostnames), rules, issues)
}

/// Reads a `TLSRoute`.
pub(super) fn read_tls(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Route> {
    let spec: RouteSpec<StreamRule> = read_spec(node, issues)?;
    let rules = stream_rules(RouteKind::Tls, spec.rules, metadata, issues);
    let path = FieldPath::root().key("spec").key("hostnames");
    let hostnames = spec.hostnames.unwrap_or_default();
    for (index, name) in hostnames.iter().enumerate() {
        let suffix = name.strip_prefix("*.").unwrap_or(name);
        if !is_subdomain(suffix) || host_name(suffix).is_err() {
            issues.error(
                path.index(index),
                format!("`{name}` is neither a DNS name in lower case nor `*.` and one: no client asks for it"),
            );
        }
    }
    let route = finish(RouteKind::Tls, metadata, (spec.parent_refs, None), rules, issues)?;
    Some(Route { hostnames, ..route })
}

fn stream_rules(kind: RouteKind, raw: Vec<StreamRule>, metadata: &Metadata, issues: &mut Issues) -> Vec<Rule> {
    if raw.len() > 1 {
        issues.error(
            FieldPath::root().key("spec").key("rules").index(1),
            format!("a {} has one rule: nothing in it tells its connections apart", kind.name()),
        );
    }
    let rules = raw.into_iter().zip(rule_paths()).map(|(raw, path)| Rule {
        name: None,
        matches: Vec::<Match>::new(),
        filters: Filters::default(),
        backends: backends(kind, raw.backend_refs, metadata, &path, issues),
        request: None,
        backend_request: None,
        retry: None,
        session: None,
    });
    rules.collect()
}

/// Reads a `ReferenceGrant`.
pub(super) fn read_grant(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Grant> {
    let raw = accept(typed::<Holder<GrantSpec>>(node), issues)?;
    issues.unknown(raw.unknown, |_| true);
    let route_kind = |group: &str, kind: &str| {
        (group == GROUP).then_some(RouteKind::ALL)?.into_iter().find(|candidate| candidate.name() == kind)
    };
    let spec = raw.value.spec;
    Some(Grant {
        name: metadata.name.clone(),
        from: spec
            .from
            .iter()
            .filter_map(|from| Some((route_kind(&from.group, &from.kind)?, from.namespace.clone())))
            .collect(),
        to: spec.to.into_iter().filter(|to| to.group.is_empty() && to.kind == "Service").map(|to| to.name).collect(),
    })
}

fn read_spec<S: for<'de> Deserialize<'de>>(node: &Node, issues: &mut Issues) -> Option<S> {
    let raw = accept(typed::<Holder<S>>(node), issues)?;
    // In a rule an unknown field means other requests or another destination.
    let refuse = |path: &FieldPath| path.shape().starts_with("spec.rules.");
    issues.unknown(raw.unknown, refuse);
    Some(raw.value.spec)
}

fn rule_paths() -> impl Iterator<Item = FieldPath> {
    let rules = FieldPath::root().key("spec").key("rules");
    (0..).map(move |index| rules.index(index))
}

fn finish(
    kind: RouteKind,
    metadata: &Metadata,
    (parents, hostnames): (Vec<ParentRef>, Option<Vec<String>>),
    rules: Vec<Rule>,
    issues: &mut Issues,
) -> Option<Route> {
    let spec = FieldPath::root().key("spec");
    if hostnames.is_some_and(|names| !names.is_empty()) {
        issues.warn(spec.key("hostnames"), "ignored: a route inside the mesh concerns all names of its Service");
    }
    if rules.is_empty() {
        issues.error(spec.key("rules"), "a route needs at least one rule");
    }
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.name.is_some()) {
        if rules.iter().take(index).any(|earlier| earlier.name == rule.name) {
            issues.error(spec.key("rules").index(index).key("name"), "another rule of this route has this name");
        }
    }
    if parents.is_empty() {
        issues.warn(spec.key("parentRefs"), "the route is attached to nothing and has no effect");
    }
    let parents = parents
        .into_iter()
        .enumerate()
        .filter_map(|(index, raw)| parent(raw, metadata, &spec.key("parentRefs").index(index), issues))
        .collect();
    Some(Route {
        kind,
        name: metadata.name.clone(),
        created: metadata.created.clone(),
        parents,
        hostnames: Vec::new(),
        rules,
    })
}

fn parent(raw: ParentRef, metadata: &Metadata, path: &FieldPath, issues: &mut Issues) -> Option<Parent> {
    let group = raw.group.as_deref().unwrap_or(GROUP);
    let kind = raw.kind.as_deref().unwrap_or("Gateway");
    if (group, kind) != ("", "Service") {
        issues.warn(
            path.key("kind"),
            format!("{kind} of group `{group}`: only `group: \"\"` and `kind: Service` have an effect inside the mesh, ignored"),
        );
        return None;
    }
    if let Some(namespace) = raw.namespace
        && namespace != metadata.name.namespace
    {
        issues.error(path.key("namespace"), "a route for the callers of another namespace's Service is not supported");
    }
    Some(Parent { service: raw.name, port: raw.port, section: raw.section_name })
}

/// A rule's name is part of its route's name: in logs, metrics and xDS.
fn rule_name(name: Option<String>, path: &FieldPath, issues: &mut Issues) -> Option<String> {
    if let Some(name) = name.as_deref().filter(|name| !is_subdomain(name)) {
        issues.error(path.key("name"), format!("`{name}` is not a DNS name in lower case"));
    }
    name
}

fn no_backends(raw: Option<&[BackendRef]>, rule: &FieldPath, issues: &mut Issues) -> Vec<Backend> {
    if raw.is_some_and(|raw| !raw.is_empty()) {
        issues.error(
            rule.key("backendRefs"),
            "a request that is redirected goes nowhere: no backends beside RequestRedirect",
        );
    }
    Vec::new()
}

fn backends(
    kind: RouteKind,
    raw: Option<Vec<BackendRef>>,
    metadata: &Metadata,
    rule: &FieldPath,
    issues: &mut Issues,
) -> Vec<Backend> {
    let raw = raw.unwrap_or_default();
    let path = rule.key("backendRefs");
    if raw.is_empty() {
        issues.warn(path.clone(), "no backends: all traffic that matches fails");
    }
    let backends =
        raw.into_iter().enumerate().map(|(index, raw)| backend(kind, raw, metadata, &path.index(index), issues));
    backends.flatten().collect()
}

fn backend(
    route: RouteKind,
    mut raw: BackendRef,
    metadata: &Metadata,
    path: &FieldPath,
    issues: &mut Issues,
) -> Option<Backend> {
    let filters = filters::of_backend(route, raw.filters.take(), &path.key("filters"), issues);
    let weight = raw.weight.unwrap_or(1);
    let Some(weight) = u32::try_from(weight).ok().filter(|_| weight <= MAX_WEIGHT) else {
        issues.error(path.key("weight"), format!("{weight} is not in 0..={MAX_WEIGHT}"));
        return None;
    };
    let (service, port, subset) = service_ref(raw, metadata, path, issues)?;
    Some(Backend { service, port, subset, weight, filters })
}

/// The port of a Service, or of a subset of its workloads.
fn service_ref(
    raw: BackendRef,
    metadata: &Metadata,
    path: &FieldPath,
    issues: &mut Issues,
) -> Option<(Name, u16, Option<String>)> {
    let group = raw.group.as_deref().unwrap_or_default();
    let kind = raw.kind.as_deref().unwrap_or("Service");
    let (service, subset) = match (group, kind) {
        ("", "Service") => (raw.name, None),
        (super::OUR_GROUP, "Subset") => match raw.name.split_once('.') {
            Some((service, subset)) if is_label(service) && is_label(subset) => {
                (service.to_owned(), Some(subset.to_owned()))
            }
            _ => {
                issues.error(path.key("name"), format!("`{}` is not `SERVICE.SUBSET`", raw.name));
                return None;
            }
        },
        _ => {
            let group_of_ours = super::OUR_GROUP;
            let reason = format!(
                "{kind} of group `{group}` is not supported, only Service and (of group {group_of_ours}) Subset"
            );
            issues.error(path.key("kind"), reason);
            return None;
        }
    };
    let Some(port) = raw.port.filter(|port| *port != 0) else {
        issues.error(path.key("port"), "a Service needs a port, 1 to 65535");
        return None;
    };
    let namespace = raw.namespace.unwrap_or_else(|| metadata.name.namespace.clone());
    Some((Name::new(namespace, service), port, subset))
}

#[cfg(test)]
mod tests;
