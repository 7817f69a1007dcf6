//! `TrafficPolicy` of `pillion.dev/v1alpha1`.

mod breaker;
mod direct_response;
mod fallback;
mod faults;
mod global_rate_limit;
mod health_checks;
mod limits;
mod load_balancing;
mod load_shedding;
mod outlier;
mod rate_limits;
pub(super) mod retries;
mod session;
mod split;
mod subsets;
mod timeouts;

use std::sync::Arc;

use pillion_wire::name::ServicePort;
use serde::Deserialize;

use super::{API_VERSION, Issues, Metadata, accept, gateway::GROUP, path::FieldPath, tree::Node, typed::typed};
use crate::core::{
    policy::{Policy, Target, TrafficPolicy},
    route::RouteKind,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    api_version: String,
    spec: RawSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    target_refs: Vec<RawTarget>,
    timeouts: Option<timeouts::Raw>,
    rate_limits: Option<Vec<rate_limits::Raw>>,
    global_rate_limit: Option<global_rate_limit::Raw>,
    load_balancing: Option<load_balancing::Raw>,
    load_shedding: Option<load_shedding::Raw>,
    faults: Option<faults::Raw>,
    direct_response: Option<direct_response::Raw>,
    limits: Option<limits::Raw>,
    breaker: Option<breaker::Raw>,
    outlier_detection: Option<outlier::Raw>,
    health_checks: Option<health_checks::Raw>,
    fallback: Option<fallback::Raw>,
    retries: Option<retries::Raw>,
    session_persistence: Option<session::Raw>,
    subsets: Option<Vec<subsets::Raw>>,
    split: Option<split::Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTarget {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    section_name: Option<String>,
}

/// Reads a `TrafficPolicy`.
pub(super) fn read(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<TrafficPolicy> {
    let raw = accept(typed::<Raw>(node), issues)?;
    issues.unknown(raw.unknown, |_| true);
    if raw.value.api_version != API_VERSION {
        issues.error(
            FieldPath::root().key("apiVersion"),
            format!("`{}` is not known, write {API_VERSION}", raw.value.api_version),
        );
    }
    let path = FieldPath::root().key("spec");
    let spec = raw.value.spec;
    if spec.target_refs.is_empty() {
        issues.error(path.key("targetRefs"), "a policy needs at least one target");
    }
    let refs = path.key("targetRefs");
    let targets: Vec<_> =
        spec.target_refs.into_iter().enumerate().filter_map(|(at, raw)| target(raw, &refs.index(at), issues)).collect();
    let global = path.key("globalRateLimit");
    let asked = spec.global_rate_limit;
    let asked = asked.and_then(|raw| global_rate_limit::read(raw, &metadata.name.namespace, &global, issues));
    if asked.as_ref().is_some_and(|asked| is_target(&asked.service, &targets, metadata)) {
        issues.error(global.key("service"), "is what the policy limits: it would ask itself");
    }
    let policy = Policy {
        global_rate_limit: asked.map(Arc::new),
        timeouts: spec.timeouts.map(|raw| timeouts::read(&raw, &path.key("timeouts"), issues)),
        rate_limits: spec.rate_limits.map(|raw| rate_limits::read(raw, &path.key("rateLimits"), issues)),
        load_balancing: spec.load_balancing.map(|raw| load_balancing::read(raw, &path.key("loadBalancing"), issues)),
        load_shedding: spec.load_shedding.map(|raw| load_shedding::read(raw, &path.key("loadShedding"), issues)),
        faults: spec.faults.map(|raw| faults::read(raw, &path.key("faults"), issues)),
        direct_response: spec
            .direct_response
            .map(|raw| direct_response::read(raw, &path.key("directResponse"), issues)),
        limits: spec.limits.map(|raw| limits::read(raw, &path.key("limits"), issues)),
        breaker: spec.breaker.map(|raw| breaker::read(raw, &path.key("breaker"), issues)),
        fallback: spec.fallback.map(|raw| fallback::read(raw, &metadata.name.namespace, &path.key("fallback"), issues)),
        outlier: spec.outlier_detection.map(|raw| outlier::read(raw, &path.key("outlierDetection"), issues)),
        health: spec.health_checks.and_then(|raw| health_checks::read(raw, &path.key("healthChecks"), issues)),
        retries: spec.retries.map(|raw| retries::read(raw, &path.key("retries"), issues)),
        session: spec.session_persistence.map(|raw| session::read(raw, &path.key("sessionPersistence"), issues)),
        split: spec.split.map(|raw| split::read(raw, &path.key("split"), issues)),
        subsets: spec.subsets.map(|raw| subsets::read(raw, &path.key("subsets"), issues)),
    };
    if policy == Policy::default() {
        issues.warn(path, "the policy says nothing");
    }
    Some(TrafficPolicy { name: metadata.name.clone(), created: metadata.created.clone(), targets, policy })
}

fn is_target(service: &ServicePort, targets: &[Target], metadata: &Metadata) -> bool {
    let is_it = |target: &Target| matches!(target, Target::Service { name, .. } if *name == service.service);
    service.namespace == metadata.name.namespace && targets.iter().any(is_it)
}

fn target(raw: RawTarget, path: &FieldPath, issues: &mut Issues) -> Option<Target> {
    if (raw.group.as_str(), raw.kind.as_str()) == ("", "Service") {
        return Some(Target::Service { name: raw.name, section: raw.section_name });
    }
    let kind = RouteKind::ALL.into_iter().find(|kind| raw.group == GROUP && kind.name() == raw.kind);
    let Some(kind) = kind.filter(|kind| matches!(kind, RouteKind::Http | RouteKind::Grpc)) else {
        issues.error(
            path.key("kind"),
            format!(
                "{} of group `{}` cannot be a target: write Service of group \"\", or HTTPRoute or GRPCRoute of {GROUP}",
                raw.kind, raw.group
            ),
        );
        return None;
    };
    if raw.section_name.is_some() {
        issues.error(
            path.key("sectionName"),
            "a policy for one rule of a route is not supported: give the rule its own route",
        );
    }
    Some(Target::Route { kind, name: raw.name })
}

#[cfg(test)]
mod tests;
