//! Parts of clusters by metadata: `lb_subset_config`, and what hosts and routes say under `envoy.lb`.

use std::sync::Arc;

use pillion_wire::xds::cluster::cluster::LbSubsetConfig;
use pillion_wire::xds::cluster::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as OfSelector;
use pillion_wire::xds::cluster::cluster::lb_subset_config::{LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy};
use pillion_wire::xds::core::Metadata;
use pillion_wire::xds::{Struct, value::Kind};

use super::at::{At, Reason, Refusal, refuse};
use crate::config::{Labels, Selector, SubsetFallback, Subsets};

/// The key that Envoy's subsets go by.
const KEY: &str = "envoy.lb";

/// `Cluster.lb_subset_config`. Without selectors hosts are not divided (Envoy).
pub(super) fn subsets(at: &At<'_>, told: Option<&LbSubsetConfig>) -> Result<Option<Arc<Subsets>>, Refusal> {
    let Some(told) = told.filter(|told| !told.subset_selectors.is_empty()) else { return Ok(None) };
    refuse!(at, told;
        locality_weight_aware, scale_locality_weight, panic_mode_any, list_as_any);
    if told.metadata_fallback_policy() != LbSubsetMetadataFallbackPolicy::MetadataNoFallback {
        return Err(at.field("metadata_fallback_policy").refuse(Reason::Unsupported));
    }
    let fallback = match LbSubsetFallbackPolicy::try_from(told.fallback_policy) {
        Ok(LbSubsetFallbackPolicy::NoFallback) => SubsetFallback::Nobody,
        Ok(LbSubsetFallbackPolicy::AnyEndpoint) => SubsetFallback::Any,
        Ok(LbSubsetFallbackPolicy::DefaultSubset) => SubsetFallback::Default,
        Err(_unknown) => return Err(at.field("fallback_policy").invalid("is not known")),
    };
    let places = &at.field("subset_selectors");
    let mut selectors = Vec::with_capacity(told.subset_selectors.len());
    for (index, selector) in told.subset_selectors.iter().enumerate() {
        let at = &places.index(index);
        refuse!(at, selector; single_host_per_subset, fallback_keys_subset);
        let at = &at.field("fallback_policy");
        let fallback = match OfSelector::try_from(selector.fallback_policy) {
            Ok(OfSelector::NotDefined) => None,
            Ok(OfSelector::NoFallback) => Some(SubsetFallback::Nobody),
            Ok(OfSelector::AnyEndpoint) => Some(SubsetFallback::Any),
            Ok(OfSelector::DefaultSubset) => Some(SubsetFallback::Default),
            Ok(OfSelector::KeysSubset) => return Err(at.refuse(Reason::Unsupported)),
            Err(_unknown) => return Err(at.invalid("is not known")),
        };
        selectors.push(Selector { keys: selector.keys.iter().cloned().collect(), fallback });
    }
    let default = told.default_subset.as_ref().map(of_struct).unwrap_or_default();
    Ok(Some(Arc::new(Subsets { selectors, fallback, default })))
}

/// What metadata says under `envoy.lb`. Lists and objects, which select nothing here, are left out.
pub(super) fn labels(metadata: &Metadata) -> Labels {
    metadata.filter_metadata.get(KEY).map(of_struct).unwrap_or_default()
}

fn of_struct(told: &Struct) -> Labels {
    let text = |kind: &Kind| match kind {
        Kind::StringValue(text) => Some(serde_json::Value::from(text.as_str()).to_string()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::BoolValue(value) => Some(value.to_string()),
        Kind::NullValue(_) | Kind::ListValue(_) | Kind::StructValue(_) => None,
    };
    let fields = told.fields.iter().filter_map(|(key, value)| Some((key.clone(), text(value.kind.as_ref()?)?)));
    fields.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use pillion_wire::xds::cluster::cluster::lb_subset_config::LbSubsetSelector;
    use pillion_wire::xds::route::route::Action;
    use pillion_wire::xds::route::route_action::ClusterSpecifier;
    use pillion_wire::xds::route::route_match::PathSpecifier;
    use pillion_wire::xds::route::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
    use pillion_wire::xds::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster};
    use pillion_wire::xds::{BoolValue, UInt32Value, Value};

    use super::super::route;
    use super::*;
    use crate::config;

    fn selector(keys: &[&str], fallback: OfSelector) -> LbSubsetSelector {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        LbSubsetSelector { keys, fallback_policy: fallback.into(), ..LbSubsetSelector::default() }
    }

    fn told(selectors: Vec<LbSubsetSelector>) -> LbSubsetConfig {
        let fallback_policy = LbSubsetFallbackPolicy::AnyEndpoint.into();
        LbSubsetConfig { subset_selectors: selectors, fallback_policy, ..LbSubsetConfig::default() }
    }

    #[test]
    fn selectors_and_their_fallbacks_are_read() {
        let read = |told: &LbSubsetConfig| subsets(&At::ROOT, Some(told)).map_err(|refusal| refusal.to_string());
        assert_eq!(read(&LbSubsetConfig::default()), Ok(None));
        let found = read(&told(vec![selector(&["b", "a"], OfSelector::NoFallback)])).expect("valid").expect("subsets");
        assert_eq!(found.fallback, SubsetFallback::Any);
        assert_eq!(found.selectors[0].fallback, Some(SubsetFallback::Nobody));
        assert!(found.selectors[0].keys.iter().eq(["a", "b"]));
        let keys = told(vec![selector(&["a"], OfSelector::NotDefined), selector(&["b"], OfSelector::KeysSubset)]);
        assert_eq!(read(&keys), Err("subset_selectors[1].fallback_policy: is not supported".to_owned()));
        let lists = LbSubsetConfig { list_as_any: true, ..told(vec![selector(&["a"], OfSelector::NotDefined)]) };
        assert_eq!(read(&lists), Err("list_as_any: is not supported".to_owned()));
    }

    fn metadata(pairs: &[(&str, &str)]) -> Option<Metadata> {
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = pairs.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        let filter_metadata = HashMap::from([(KEY.to_owned(), Struct { fields })]);
        Some(Metadata { filter_metadata, ..Metadata::default() })
    }

    #[test]
    fn a_route_says_which_part_and_its_clusters_before_it() {
        let weight = |name: &str, pairs: &[(&str, &str)]| ClusterWeight {
            name: name.to_owned(),
            weight: Some(UInt32Value { value: 1 }),
            metadata_match: metadata(pairs),
            ..ClusterWeight::default()
        };
        let clusters = WeightedCluster {
            clusters: vec![weight("a", &[]), weight("b", &[("version", "2")])],
            random_value_specifier: Some(RandomValueSpecifier::UseHashPolicy(BoolValue { value: true })),
            ..WeightedCluster::default()
        };
        let read = |specifier| {
            let action = RouteAction {
                metadata_match: metadata(&[("version", "1"), ("stage", "prod")]),
                cluster_specifier: Some(specifier),
                ..RouteAction::default()
            };
            let matched =
                RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() };
            let entry = Route { r#match: Some(matched), action: Some(Action::Route(action)), ..Route::default() };
            let host = VirtualHost { domains: vec!["*".into()], routes: vec![entry], ..VirtualHost::default() };
            let message = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
            let read = route::configuration(&At::ROOT, message).expect("valid");
            let config::Action::Forward(split) = read.virtual_hosts[0].routes[0].action.clone() else { panic!() };
            split
        };
        let criteria = |version: &str| labels(&metadata(&[("version", version), ("stage", "prod")]).expect("some"));
        let split = read(ClusterSpecifier::WeightedClusters(clusters));
        let said: Vec<&Labels> = split.clusters.iter().map(|cluster| &cluster.criteria).collect();
        assert_eq!(said, [&criteria("1"), &criteria("2")]);
        assert!(split.by_hash);
        let split = read(ClusterSpecifier::Cluster("a".into()));
        assert_eq!((&split.clusters[0].criteria, split.by_hash), (&criteria("1"), false));
    }

    #[test]
    fn values_of_different_types_are_different() {
        let value = |kind| Value { kind: Some(kind) };
        let fields = HashMap::from([
            ("text".to_owned(), value(Kind::StringValue("1".to_owned()))),
            ("number".to_owned(), value(Kind::NumberValue(1.0))),
            ("list".to_owned(), value(Kind::ListValue(Default::default()))),
        ]);
        let metadata =
            Metadata { filter_metadata: HashMap::from([(KEY.to_owned(), Struct { fields })]), ..Metadata::default() };
        let expected = [("number", "1"), ("text", "\"1\"")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels(&metadata), Labels::from(expected));
    }
}
