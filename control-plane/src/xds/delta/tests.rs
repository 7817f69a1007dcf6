use super::*;

use crate::xds::{
    dialect::Dialect,
    subscriptions::{MAX_NAMES, SubscribeError},
    tests::{catalog, shop, viewer},
};
use pillion_wire::xds::{rpc, type_url};

struct Client {
    core: Delta,
    catalog: Catalog,
    viewer: Viewer,
    events: Vec<Event>,
}

impl Client {
    fn new(dialect: Dialect) -> Self {
        Self { core: Delta::default(), catalog: catalog(&shop(1), None), viewer: viewer(dialect), events: Vec::new() }
    }

    fn send(&mut self, kind: Kind, change: impl FnOnce(&mut DeltaDiscoveryRequest)) -> Option<Event> {
        let mut request =
            DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..DeltaDiscoveryRequest::default() };
        change(&mut request);
        self.core.handle_request(kind, request).unwrap()
    }

    fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        self.send(kind, |request| request.resource_names_subscribe = owned(names));
    }

    fn edit(&mut self, text: &str) {
        self.catalog = catalog(text, Some(&self.catalog));
        self.core.mark_changed();
    }

    fn poll(&mut self) -> Option<DeltaDiscoveryResponse> {
        self.core.poll_response(&self.catalog, &self.viewer, &mut self.events)
    }

    /// Names of the next response's resources and of what it removes.
    fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.poll().unwrap();
        let names = response.resources.into_iter().map(|resource| resource.name).collect();
        (names, response.removed_resources)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn only_what_changed_is_sent_and_nothing_twice() {
    let mut client = Client::new(Dialect::Pillion);
    client.subscribe(Kind::Route, &["a.shop:80", "b.shop:80"]);
    assert_eq!(client.next().0, ["a.shop:80", "b.shop:80"]);
    assert!(client.poll().is_none());
    client.edit(&shop(1));
    assert!(client.poll().is_none(), "nothing changed");
    client.edit(&shop(2));
    assert_eq!(client.next().0, ["a.shop:80"]);
    assert!(client.poll().is_none());
}

#[test]
fn what_does_not_exist_is_said_at_once_and_sent_when_it_does() {
    let mut client = Client::new(Dialect::Pillion);
    let later = shop(1).replace("name: b,", "name: later,");
    client.subscribe(Kind::Cluster, &["later.shop:80"]);
    assert_eq!(client.next(), (owned(&[]), owned(&["later.shop:80"])));
    client.edit(&shop(2));
    assert!(client.poll().is_none(), "it was said already");
    client.edit(&later);
    assert_eq!(client.next().0, ["later.shop:80"]);
    client.edit(&shop(1));
    assert_eq!(client.next().1, ["later.shop:80"]);
}

#[test]
fn an_unsubscribed_name_is_forgotten_and_one_asked_for_again_is_sent_again() {
    let mut client = Client::new(Dialect::Pillion);
    client.subscribe(Kind::Route, &["a.shop:80"]);
    client.next();
    client.subscribe(Kind::Route, &["a.shop:80"]);
    assert_eq!(client.next().0, ["a.shop:80"]);
    client.send(Kind::Route, |request| request.resource_names_unsubscribe = owned(&["a.shop:80"]));
    client.edit(&shop(2));
    assert!(client.poll().is_none());
    assert_eq!(client.core.names(), 0);
}

#[test]
fn what_the_client_holds_from_before_is_not_sent_unless_it_changed() {
    let mut first = Client::new(Dialect::Pillion);
    first.subscribe(Kind::Route, &["a.shop:80", "b.shop:80"]);
    let held: Vec<(String, String)> =
        first.poll().unwrap().resources.into_iter().map(|resource| (resource.name, resource.version)).collect();
    let mut client = Client::new(Dialect::Pillion);
    client.edit(&shop(2));
    client.send(Kind::Route, |request| {
        request.resource_names_subscribe = owned(&["a.shop:80", "b.shop:80", "gone.shop:80"]);
        request.initial_resource_versions = held.into_iter().collect();
        request.initial_resource_versions.insert("gone.shop:80".to_owned(), "1".to_owned());
        request.initial_resource_versions.insert("not-asked-for:80".to_owned(), "1".to_owned());
    });
    assert_eq!(client.next(), (owned(&["a.shop:80"]), owned(&["gone.shop:80"])));
    assert!(client.poll().is_none());
}

#[test]
fn a_wildcard_follows_what_comes_and_goes() {
    let mut client = Client::new(Dialect::Envoy);
    client.send(Kind::Cluster, |_| {});
    assert_eq!(client.next().0, ["a.shop:80", "b.shop:80", "t.shop:7000"]);
    client.edit(&shop(1).replace("name: b,", "name: c,"));
    let (new, gone) = client.next();
    assert_eq!((new, gone), (owned(&["c.shop:80"]), owned(&["b.shop:80"])));
    client.send(Kind::Cluster, |request| request.resource_names_unsubscribe = owned(&["*"]));
    client.edit(&shop(1));
    assert!(client.poll().is_none());
}

#[test]
fn a_first_wildcard_is_answered_even_if_there_is_nothing() {
    let mut client = Client::new(Dialect::Envoy);
    client.viewer.outbound_address = None;
    client.send(Kind::Listener, |_| {});
    assert_eq!(client.next(), (owned(&[]), owned(&[])));
    assert!(client.poll().is_none());
}

#[test]
fn envoy_is_sent_the_endpoints_of_a_changed_cluster_again() {
    let changed = shop(1).replace("[{port: 80}]", "[{port: 80, appProtocol: http}]");
    for (dialect, again) in [(Dialect::Envoy, true), (Dialect::Pillion, false)] {
        let mut client = Client::new(dialect);
        client.subscribe(Kind::Cluster, &["b.shop:80"]);
        client.next();
        client.subscribe(Kind::Endpoints, &["b.shop:80"]);
        client.next();
        client.edit(&changed);
        assert_eq!(client.next().0, ["b.shop:80"], "{dialect:?}: the cluster");
        assert_eq!(client.poll().is_some(), again, "{dialect:?}: its endpoints");
    }
}

#[test]
fn a_sidecar_never_gets_everything() {
    let mut client = Client::new(Dialect::Pillion);
    client.send(Kind::Cluster, |_| {});
    assert_eq!(client.next(), (owned(&[]), owned(&[])));
}

/// What is behind and what is refused, by name.
fn standing(client: &Client) -> Vec<(String, bool, Option<String>)> {
    let all = client.core.standings(&client.catalog, &client.viewer).into_iter();
    all.map(|one| (one.name.clone(), one.is_in_sync(), one.refused.map(|refused| refused.detail.clone()))).collect()
}

#[test]
fn it_is_known_what_a_client_has_accepted_and_what_it_refused() {
    let mut client = Client::new(Dialect::Pillion);
    let (a, b) = ("a.shop:80".to_owned(), "b.shop:80".to_owned());
    client.subscribe(Kind::Route, &[&a, &b, "nobody.shop:80"]);
    let nobody = ("nobody.shop:80".to_owned(), true, None);
    let both = |a: (bool, Option<&str>), b: (bool, Option<&str>)| {
        let one =
            |name: &str, (in_sync, detail): (bool, Option<&str>)| (name.to_owned(), in_sync, detail.map(str::to_owned));
        vec![one("a.shop:80", a), one("b.shop:80", b), nobody.clone()]
    };
    assert_eq!(standing(&client), both((false, None), (false, None)));
    let nonce = client.poll().unwrap().nonce;
    assert_eq!(standing(&client), both((false, None), (false, None)));
    client.send(Kind::Route, |request| request.response_nonce = nonce);
    assert_eq!(standing(&client), both((true, None), (true, None)));

    client.edit(&shop(2));
    assert_eq!(standing(&client), both((false, None), (true, None)));
    client.subscribe(Kind::Route, &[&b]);
    let nonce = client.poll().unwrap().nonce;
    client.send(Kind::Route, |request| {
        request.response_nonce = nonce;
        let message = "a.shop:80: regex: no; and more".to_owned();
        request.error_detail = Some(rpc::Status { message, ..rpc::Status::default() });
    });
    assert_eq!(standing(&client), both((false, Some("a.shop:80: regex: no")), (true, None)));
    client.edit(&shop(1));
    let nonce = client.poll().unwrap().nonce;
    client.send(Kind::Route, |request| request.response_nonce = nonce);
    assert_eq!(standing(&client), both((true, None), (true, None)));
}

#[test]
fn acks_and_nacks_are_told_and_a_refused_version_is_not_sent_again() {
    let mut client = Client::new(Dialect::Pillion);
    client.subscribe(Kind::Route, &["a.shop:80"]);
    let nonce = client.poll().unwrap().nonce;
    let ack = client.send(Kind::Route, |request| request.response_nonce.clone_from(&nonce));
    assert_eq!(ack, Some(Event::Ack { kind: Kind::Route, version: nonce }));
    client.edit(&shop(2));
    let nonce = client.poll().unwrap().nonce;
    let nack = client.send(Kind::Route, |request| {
        request.response_nonce.clone_from(&nonce);
        request.error_detail = Some(rpc::Status { message: "no".to_owned(), ..rpc::Status::default() });
    });
    assert_eq!(nack, Some(Event::Nack { kind: Kind::Route, version: nonce, reason: "no".to_owned() }));
    assert!(client.poll().is_none());
    client.edit(&shop(3));
    assert_eq!(client.next().0, ["a.shop:80"]);
}

#[test]
fn another_workloads_listener_is_an_event_once() {
    let mut client = Client::new(Dialect::Pillion);
    let name = "pillion/inbound?xds.resource.listening_address=10.0.0.3:15008";
    client.subscribe(Kind::Listener, &[name]);
    assert_eq!(client.next().1, [name]);
    client.edit(&shop(2));
    assert!(client.poll().is_none());
    let refused = client.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert_eq!(refused, 1);
}

#[test]
fn clusters_go_before_what_refers_to_them() {
    let mut client = Client::new(Dialect::Pillion);
    for kind in [Kind::Route, Kind::Endpoints, Kind::Cluster] {
        client.subscribe(kind, &["a.shop:80"]);
    }
    client.subscribe(Kind::Listener, &["a:80"]);
    let order: Vec<String> = std::iter::from_fn(|| client.poll()).map(|response| response.type_url).collect();
    assert_eq!(order, [type_url::CLUSTER, type_url::ENDPOINTS, type_url::LISTENER, type_url::ROUTE]);
}

#[test]
fn too_many_and_too_long_names_are_refused() {
    let mut core = Delta::default();
    let request = |names: Vec<String>| DeltaDiscoveryRequest {
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    let names: Vec<String> = (0..MAX_NAMES).map(|number| format!("s{number}:80")).collect();
    core.handle_request(Kind::Listener, request(names.clone())).unwrap();
    core.handle_request(Kind::Listener, request(names)).unwrap();
    let more = core.handle_request(Kind::Route, request(owned(&["one.more:80"])));
    assert_eq!(more, Err(StreamError::Subscribe(SubscribeError::TooMany)));
    let long = core.handle_request(Kind::Route, request(vec!["x".repeat(5000)]));
    assert_eq!(long, Err(StreamError::Subscribe(SubscribeError::TooLong)));
}

#[test]
fn a_large_answer_comes_in_parts() {
    let mut text = String::new();
    for number in 0..300 {
        text.push_str(&crate::core::tests::service(&format!("s{number}"), "[{port: 80}]"));
        // A long route makes large resources without many objects.
        let value = "x".repeat(12_000);
        let rules = format!(
            "[{{matches: [{{headers: [{{name: h, value: {value}}}]}}], backendRefs: [{{name: s{number}, port: 80}}]}}]"
        );
        let parent = format!("name: s{number}");
        text.push_str(&crate::core::tests::route("HTTPRoute", &format!("r{number}"), &parent, &rules));
    }
    let mut client = Client::new(Dialect::Pillion);
    client.edit(&text);
    let names: Vec<String> = (0..300).map(|number| format!("s{number}.shop:80")).collect();
    client.send(Kind::Route, |request| request.resource_names_subscribe = names);
    let responses: Vec<DeltaDiscoveryResponse> = std::iter::from_fn(|| client.poll()).collect();
    assert!(responses.len() > 1);
    let sizes = responses.iter().map(prost::Message::encoded_len);
    assert!(sizes.max().unwrap() < 4 << 20);
    let total: usize = responses.iter().map(|response| response.resources.len()).sum();
    assert_eq!(total, 300);
}
