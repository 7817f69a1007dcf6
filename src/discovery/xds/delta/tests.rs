use pillion_wire::xds::cluster::{Cluster, cluster};
use pillion_wire::xds::core::{AggregatedConfigSource, ConfigSource, config_source};
use pillion_wire::xds::pack;

use super::*;

fn delta() -> Delta {
    let mut delta = Delta::new(Node { id: "shop/orders-1".into(), ..Node::default() });
    delta.handle_stream_start();
    delta
}

fn eds(name: &str, lb_policy: i32) -> Resource {
    let ads = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    let source = ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() };
    let cluster = Cluster {
        name: name.into(),
        lb_policy,
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(3)),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(source), ..Default::default() }),
        ..Cluster::default()
    };
    resource(name, "1", pack(type_url::CLUSTER, &cluster))
}

fn resource(name: &str, version: &str, content: pillion_wire::xds::Any) -> Resource {
    Resource { name: name.into(), version: version.into(), resource: Some(content), ..Resource::default() }
}

fn response(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url::CLUSTER.into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|&name| name.into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn requests(delta: &mut Delta) -> Vec<DeltaDiscoveryRequest> {
    std::iter::from_fn(|| delta.poll_request()).collect()
}

#[test]
fn nothing_is_said_before_something_is_wanted() {
    assert_eq!(delta().poll_request(), None);
}

#[test]
fn only_the_first_request_of_a_stream_says_who_we_are() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    delta.subscribe(Kind::Cluster, "b");
    delta.subscribe(Kind::Listener, "l");
    let sent = requests(&mut delta);
    assert_eq!(sent.len(), 2, "one per kind");
    assert_eq!((sent[0].type_url.as_str(), sent[0].node.is_some()), (type_url::LISTENER, true));
    assert_eq!(sent[1].resource_names_subscribe, ["a", "b"]);
    assert_eq!(sent[1].node, None);
    assert_eq!(sent[1].response_nonce, "");
}

#[test]
fn a_good_response_is_acknowledged() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    requests(&mut delta);
    let received = delta.handle_response(response("n1", vec![eds("a", 0)], &[]));
    assert_eq!(received.updates.len(), 1);
    assert!(matches!(&received.updates[0].change, Change::Accepted(_)));
    let sent = requests(&mut delta);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].response_nonce.as_str(), &sent[0].error_detail), ("n1", &None));
    assert_eq!(sent[0].type_url, type_url::CLUSTER);
}

#[test]
fn a_bad_resource_is_refused_by_itself_and_named_with_its_path() {
    let mut delta = delta();
    for name in ["a", "b", "c"] {
        delta.subscribe(Kind::Cluster, name);
    }
    requests(&mut delta);
    let mut short_lived = eds("c", 0);
    short_lived.ttl = Some(pillion_wire::xds::Duration::default());
    let received = delta.handle_response(response("n1", vec![eds("a", 0), eds("b", 6), short_lived], &[]));
    assert_eq!(received.updates.iter().map(|update| update.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(received.refused.len(), 2);
    let detail = requests(&mut delta).remove(0).error_detail.expect("a NACK");
    assert_eq!(detail.code, INVALID_ARGUMENT);
    assert_eq!(detail.message, "b: lb_policy: is not supported; c: ttl: is not supported");
}

#[test]
fn versions_of_what_was_accepted_are_told_to_the_next_stream() {
    let mut delta = delta();
    for name in ["a", "b", "c", "d"] {
        delta.subscribe(Kind::Cluster, name);
    }
    requests(&mut delta);
    delta.handle_response(response("n1", vec![eds("a", 0), eds("b", 6), eds("c", 0), eds("d", 0)], &[]));
    // A later refusal does not make what is in force unknown.
    let mut worse = eds("a", 6);
    worse.version = "2".into();
    delta.handle_response(response("n2", vec![worse], &["c"]));
    delta.unsubscribe(Kind::Cluster, "d");
    delta.handle_stream_start();
    let sent = requests(&mut delta);
    assert_eq!(sent.len(), 1, "answers to the old stream are forgotten");
    assert!(sent[0].node.is_some());
    assert_eq!(sent[0].resource_names_subscribe, ["a", "b", "c"]);
    assert_eq!(sent[0].initial_resource_versions, HashMap::from([("a".into(), "1".into())]));
    delta.subscribe(Kind::Cluster, "e");
    let later = requests(&mut delta).remove(0);
    assert_eq!((later.resource_names_subscribe, later.initial_resource_versions.len()), (vec!["e".into()], 0));
}

#[test]
fn a_resource_that_nobody_wants_any_more_is_passed_over() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    requests(&mut delta);
    delta.unsubscribe(Kind::Cluster, "a");
    let received = delta.handle_response(response("n1", vec![eds("a", 0)], &["a", "x"]));
    assert!(received.updates.is_empty() && received.refused.is_empty());
    let sent = requests(&mut delta);
    assert_eq!(sent[0].response_nonce, "n1");
    assert_eq!(sent[1].resource_names_unsubscribe, ["a"]);
}

#[test]
fn removal_and_absence_are_the_same_news() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    let received = delta.handle_response(response("n1", vec![], &["a"]));
    assert_eq!(received.updates, [Update { kind: Kind::Cluster, name: "a".into(), change: Change::Removed }]);
}

#[test]
fn given_up_and_wanted_again_are_both_said_in_order() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    requests(&mut delta);
    delta.unsubscribe(Kind::Cluster, "a");
    delta.subscribe(Kind::Cluster, "a");
    let sent = requests(&mut delta);
    assert_eq!(sent[0].resource_names_unsubscribe, ["a"]);
    assert!(sent[0].resource_names_subscribe.is_empty());
    assert_eq!(sent[1].resource_names_subscribe, ["a"]);
}

#[test]
fn giving_up_before_anything_was_said_says_nothing() {
    let mut delta = delta();
    delta.subscribe(Kind::Cluster, "a");
    delta.unsubscribe(Kind::Cluster, "a");
    delta.unsubscribe(Kind::Cluster, "never");
    assert_eq!(delta.poll_request(), None, "an empty first request would ask for everything");
}

#[test]
fn a_type_that_was_not_asked_for_is_refused() {
    let mut delta = delta();
    let mut foreign = response("n1", vec![eds("a", 0)], &[]);
    foreign.type_url = type_url::SECRET.into();
    assert!(delta.handle_response(foreign).updates.is_empty());
    let answer = requests(&mut delta).remove(0);
    assert_eq!((answer.type_url.as_str(), answer.response_nonce.as_str()), (type_url::SECRET, "n1"));
    assert!(answer.error_detail.is_some());
}

#[test]
fn a_flood_of_refusals_is_counted_not_listed() {
    let mut delta = delta();
    let names: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
    names.iter().for_each(|name| delta.subscribe(Kind::Cluster, name));
    requests(&mut delta);
    let all = names.iter().map(|name| eds(name, 6)).collect();
    assert_eq!(delta.handle_response(response("n1", all, &[])).refused.len(), 1000);
    let detail = requests(&mut delta).remove(0).error_detail.expect("a NACK").message;
    assert!(detail.ends_with("and 968 more") && detail.len() < 4096, "{}", detail.len());
}
