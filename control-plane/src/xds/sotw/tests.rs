use super::*;

use crate::xds::{
    dialect::Dialect,
    tests::{catalog, shop, viewer},
};
use pillion_wire::xds::{cluster::Cluster, endpoint::ClusterLoadAssignment, rpc, type_url, unpack};

struct Client {
    core: Sotw,
    catalog: Catalog,
    viewer: Viewer,
}

impl Client {
    fn new(dialect: Dialect) -> Self {
        Self { core: Sotw::default(), catalog: catalog(&shop(1), None), viewer: viewer(dialect) }
    }

    fn ask(&mut self, kind: Kind, names: &[&str], answered: Option<&DiscoveryResponse>) -> Option<Event> {
        let request = DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: answered.map(|response| response.nonce.clone()).unwrap_or_default(),
            version_info: answered.map(|response| response.version_info.clone()).unwrap_or_default(),
            ..DiscoveryRequest::default()
        };
        self.core.handle_request(kind, request).unwrap()
    }

    fn edit(&mut self, text: &str) {
        self.catalog = catalog(text, Some(&self.catalog));
        self.core.mark_changed();
    }

    fn poll(&mut self) -> Option<DiscoveryResponse> {
        self.core.poll_response(&self.catalog, &self.viewer, &mut Vec::new())
    }
}

fn clusters(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| unpack::<Cluster>(type_url::CLUSTER, any).unwrap().name).collect()
}

fn endpoints(response: &DiscoveryResponse) -> Vec<String> {
    let name = |any| unpack::<ClusterLoadAssignment>(type_url::ENDPOINTS, any).unwrap().cluster_name;
    response.resources.iter().map(name).collect()
}

#[test]
fn a_response_of_clusters_holds_all_that_were_asked_for() {
    let mut client = Client::new(Dialect::Grpc);
    client.ask(Kind::Cluster, &["a.shop:80"], None);
    let first = client.poll().unwrap();
    assert_eq!(clusters(&first), ["a.shop:80"]);
    let ack = client.ask(Kind::Cluster, &["a.shop:80"], Some(&first));
    assert!(matches!(ack, Some(Event::Ack { .. })));
    assert!(client.poll().is_none());
    client.ask(Kind::Cluster, &["a.shop:80", "b.shop:80"], Some(&first));
    let second = client.poll().unwrap();
    assert_eq!(clusters(&second), ["a.shop:80", "b.shop:80"]);
    assert_ne!(first.version_info, second.version_info);
}

#[test]
fn what_is_not_in_a_response_of_listeners_does_not_exist() {
    let mut client = Client::new(Dialect::Grpc);
    client.ask(Kind::Listener, &["nowhere:80"], None);
    assert!(client.poll().unwrap().resources.is_empty());
    assert!(client.poll().is_none());
}

#[test]
fn of_endpoints_only_what_changed_is_sent() {
    let mut client = Client::new(Dialect::Grpc);
    client.ask(Kind::Endpoints, &["a.shop:80", "b.shop:80", "gone.shop:80"], None);
    let first = client.poll().unwrap();
    assert_eq!(endpoints(&first), ["a.shop:80", "b.shop:80"]);
    client.edit(&shop(1).replace("10.0.0.1", "10.0.0.9"));
    assert_eq!(endpoints(&client.poll().unwrap()), ["a.shop:80"]);
    client.edit(&shop(1).replace("name: b,", "name: c,"));
    assert_eq!(endpoints(&client.poll().unwrap()), ["a.shop:80"], "b is gone, of which nothing is said");
    assert!(client.poll().is_none());
}

#[test]
fn a_stale_request_says_nothing() {
    let mut client = Client::new(Dialect::Grpc);
    client.ask(Kind::Cluster, &["a.shop:80"], None);
    let first = client.poll().unwrap();
    client.edit(&shop(1).replace("serviceAccount: a", "serviceAccount: z"));
    client.poll().unwrap();
    let event = client.ask(Kind::Cluster, &["b.shop:80"], Some(&first));
    assert_eq!(event, None);
    assert!(client.poll().is_none());
}

#[test]
fn a_nack_is_told_and_the_same_version_is_not_sent_again() {
    let mut client = Client::new(Dialect::Grpc);
    client.ask(Kind::Cluster, &["a.shop:80"], None);
    let nonce = client.poll().unwrap().nonce;
    let request = DiscoveryRequest {
        resource_names: vec!["a.shop:80".to_owned()],
        response_nonce: nonce,
        error_detail: Some(rpc::Status { message: "no".to_owned(), ..rpc::Status::default() }),
        ..DiscoveryRequest::default()
    };
    let event = client.core.handle_request(Kind::Cluster, request).unwrap();
    assert!(matches!(event, Some(Event::Nack { reason, .. }) if reason == "no"));
    assert!(client.poll().is_none());
}

#[test]
fn envoy_gets_everything_and_endpoints_again_after_their_cluster() {
    let mut client = Client::new(Dialect::Envoy);
    client.ask(Kind::Cluster, &[], None);
    let all = client.poll().unwrap();
    assert_eq!(clusters(&all), ["a.shop:80", "b.shop:80", "t.shop:7000"]);
    client.ask(Kind::Cluster, &[], Some(&all));
    assert!(client.poll().is_none());
    client.ask(Kind::Endpoints, &["a.shop:80", "b.shop:80"], None);
    client.poll().unwrap();
    client.edit(&shop(1).replace("appProtocol: http", "appProtocol: grpc").replace("mesh: {port: 15008}, ", ""));
    assert_eq!(clusters(&client.poll().unwrap()).len(), 3);
    assert!(endpoints(&client.poll().unwrap()).contains(&"a.shop:80".to_owned()));
}

#[test]
fn names_after_everything_are_only_those() {
    let mut client = Client::new(Dialect::Envoy);
    client.ask(Kind::Cluster, &[], None);
    let all = client.poll().unwrap();
    client.ask(Kind::Cluster, &["a.shop:80"], Some(&all));
    client.edit(&shop(1).replace("name: b,", "name: c,"));
    let next = client.poll();
    assert!(next.is_none_or(|next| clusters(&next) == ["a.shop:80"]));
}
