//! Which records a tap wants.

use std::time::Duration;

use pillion_wire::observe::{TapRequest, is_sensitive};

use super::Us;
use crate::telemetry::Record;

/// Conditions, ready for use.
#[derive(Debug)]
pub(super) struct Filter {
    wanted: TapRequest,
    to: Option<Party>,
    from: Option<Party>,
}

/// A workload, service account or Service.
#[derive(Debug, PartialEq, Eq)]
struct Party {
    namespace: Option<String>,
    name: Pattern,
}

/// A text; with a `*` at its end anything that begins so.
#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Filter {
    pub(super) fn new(request: &TapRequest) -> Self {
        let mut wanted = request.clone();
        wanted.field_values.retain(|name| !is_sensitive(name));
        Self { to: Party::of(&wanted.to), from: Party::of(&wanted.from), wanted }
    }

    pub(super) fn wants_fields(&self) -> bool {
        self.wanted.field_names || !self.wanted.field_values.is_empty()
    }

    pub(super) fn wants_value(&self, name: &str) -> bool {
        self.wanted.field_values.iter().any(|wanted| wanted == name)
    }

    /// Is it one of the share that is wanted? `chance` is uniform in `0.0..1.0`.
    pub(super) fn is_chosen(&self, chance: f64) -> bool {
        self.wanted.sample == 0 || chance < f64::from(self.wanted.sample) / 1_000_000.0
    }

    pub(super) fn matches(&self, record: &Record, took: Duration, us: &Us) -> bool {
        let wanted = &self.wanted;
        let status = u32::from(record.status);
        let is_status = |range: &pillion_wire::observe::StatusRange| (range.first..=range.last).contains(&status);
        let is_reason = |reason: &String| *reason == record.reason || (reason == "*" && !record.reason.is_empty());
        (wanted.direction.is_empty() || wanted.direction == record.direction)
            && (wanted.statuses.is_empty() || wanted.statuses.iter().any(is_status))
            && (wanted.method.is_empty() || wanted.method == record.method || (record.is_tcp && wanted.method == "TCP"))
            && record.path.starts_with(&wanted.path)
            && (wanted.reasons.is_empty() || wanted.reasons.iter().any(is_reason))
            && u64::try_from(took.as_micros()).unwrap_or(u64::MAX) >= wanted.slower_micros
            && (wanted.route.is_empty() || Pattern::of(&wanted.route).matches(&record.route))
            && self.ends_match(record, us)
    }

    /// We are one end; the other one is known by its certificate, and as a destination by its name.
    fn ends_match(&self, record: &Record, us: &Us) -> bool {
        let is_us =
            |party: &Party| party.is(&us.namespace, &us.workload) || party.is(&us.namespace, &us.service_account);
        let is_peer = |party: &Party| account(&record.peer).is_some_and(|(namespace, name)| party.is(namespace, name));
        let is_destination =
            |party: &Party| service(&record.destination).is_some_and(|(namespace, name)| party.is(namespace, name));
        let is_callee = |party: &Party| match record.direction {
            "outbound" => is_destination(party) || is_peer(party),
            _ => is_us(party) || is_destination(party),
        };
        let is_caller = |party: &Party| if record.direction == "outbound" { is_us(party) } else { is_peer(party) };
        self.to.as_ref().is_none_or(is_callee) && self.from.as_ref().is_none_or(is_caller)
    }
}

impl Party {
    /// `NAME`, `NAMESPACE/NAME`, `NAME.NAMESPACE` or `NAME.NAMESPACE.svc…`; `None` for nothing.
    fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (namespace, name) = match (text.split_once('/'), text.split_once('.')) {
            (Some((namespace, name)), _) => (Some(namespace), name),
            (None, Some((name, rest))) => (Some(rest.split('.').next().unwrap_or(rest)), name),
            (None, None) => (None, text),
        };
        let namespace = namespace.filter(|namespace| *namespace != "*").map(str::to_owned);
        Some(Self { namespace, name: Pattern::of(name) })
    }

    fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace) && self.name.matches(name)
    }
}

impl Pattern {
    fn of(text: &str) -> Self {
        let begins = text.strip_suffix('*');
        Self { text: begins.unwrap_or(text).to_owned(), is_prefix: begins.is_some() }
    }

    fn matches(&self, text: &str) -> bool {
        if self.is_prefix { text.starts_with(&self.text) } else { text == self.text }
    }
}

/// Namespace and name of `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`.
fn account(id: &str) -> Option<(&str, &str)> {
    let (_, path) = id.strip_prefix("spiffe://")?.split_once("/ns/")?;
    path.split_once("/sa/")
}

/// Namespace and name of a destination such as `orders.shop.svc.cluster.local:80`.
fn service(destination: &str) -> Option<(&str, &str)> {
    let host = destination.rsplit_once(':').map_or(destination, |(host, _)| host);
    let (name, rest) = host.split_once('.')?;
    Some((rest.split('.').next().unwrap_or(rest), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_named_in_several_ways() {
        let party = |text: &str| Party::of(text).unwrap();
        for text in ["orders", "shop/orders", "orders.shop", "orders.shop.svc.cluster.local", "ord*", "*/orders", "*"] {
            assert!(party(text).is("shop", "orders"), "{text}");
        }
        for text in ["order", "bank/orders", "orders.bank", "x*", "orders-v1"] {
            assert!(!party(text).is("shop", "orders"), "{text}");
        }
        assert_eq!(account("spiffe://cluster.local/ns/shop/sa/orders"), Some(("shop", "orders")));
        assert_eq!(service("orders.shop:80"), Some(("shop", "orders")));
        assert_eq!((account(""), service("10.0.0.1"), service("")), (None, Some(("0", "10")), None));
    }

    #[test]
    fn secrets_are_not_given_to_whoever_asks() {
        let request =
            TapRequest { field_values: vec!["cookie".into(), "x-request-id".into()], ..TapRequest::default() };
        let filter = Filter::new(&request);
        assert!(filter.wants_value("x-request-id") && !filter.wants_value("cookie"));
    }
}
