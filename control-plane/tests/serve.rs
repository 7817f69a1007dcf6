//! The control plane as sidecars see it: a real process, TLS, gRPC.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests, which may fail like tests"
)]

mod support;

use std::{fs, time::Duration};

use pillion_wire::{
    name::ListenerName,
    xds::{
        endpoint::ClusterLoadAssignment,
        listener::Listener,
        route::{RouteConfiguration, route, route_action},
        type_url, unpack,
    },
};
use rcgen::{KeyPair, SanType};
use support::{ControlPlane, Delta, SHOP, csr, csr_with, node, split};
use tonic::Code;

fn inbound(address: &str) -> String {
    ListenerName::Inbound(address.parse().unwrap()).to_string()
}

async fn open(plane: &ControlPlane, workload: &str, account: &str) -> Delta {
    let token = plane.token("shop", account);
    let channel = plane.channel(None).await;
    Delta::open(channel, Some(&token), &node("shop", workload, account)).await.unwrap()
}

fn weights(routes: &RouteConfiguration) -> Vec<u32> {
    let Some(route::Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!("{routes:?}") };
    let Some(route_action::ClusterSpecifier::WeightedClusters(clusters)) = &action.cluster_specifier else {
        panic!("{action:?}")
    };
    clusters.clusters.iter().map(|cluster| cluster.weight.as_ref().unwrap().value).collect()
}

#[tokio::test]
async fn a_sidecar_follows_listener_route_cluster_and_endpoints() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP), ("split.yaml", &split(90))]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    stream.subscribe(type_url::LISTENER, &["orders:80", "nowhere:80"]).await;
    let response = stream.next().await.unwrap();
    assert_eq!(response.removed_resources, ["nowhere:80"]);
    assert_eq!(response.resources[0].name, "orders:80");
    let listener: Listener = unpack(type_url::LISTENER, response.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(listener.name, "orders:80");
    assert!(listener.api_listener.is_some());

    stream.subscribe(type_url::ROUTE, &["orders.shop:80"]).await;
    let response = stream.next().await.unwrap();
    let routes: RouteConfiguration = unpack(type_url::ROUTE, response.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(weights(&routes), [90, 10]);

    stream.subscribe(type_url::CLUSTER, &["orders.shop:80", "payment.shop:80"]).await;
    assert_eq!(stream.next().await.unwrap().resources.len(), 2);
    stream.subscribe(type_url::ENDPOINTS, &["orders.shop:80", "payment.shop:80"]).await;
    let response = stream.next().await.unwrap();
    let endpoints: ClusterLoadAssignment =
        unpack(type_url::ENDPOINTS, response.resources[0].resource.as_ref().unwrap()).unwrap();
    let metadata = endpoints.endpoints[0].lb_endpoints[0].metadata.as_ref().unwrap();
    let mesh = pillion_wire::mesh::MeshEndpoint::from_metadata(metadata).unwrap().unwrap();
    assert_eq!(mesh.port, 25008);
    assert_eq!(mesh.identity.service_account(), "orders");

    // An edit of the route pushes the route and nothing else.
    fs::write(plane.config("split.yaml"), split(50)).unwrap();
    let response = stream.next().await.unwrap();
    assert_eq!(response.type_url, type_url::ROUTE);
    assert_eq!(response.resources.len(), 1);
    let routes: RouteConfiguration = unpack(type_url::ROUTE, response.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(weights(&routes), [50, 10]);
    assert!(stream.is_quiet(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn hosts_and_single_workloads_follow_the_documents() {
    let database = |pods: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 5432}}]}}\n{pods}"
        )
    };
    let pod = |number: u8| {
        format!(
            "---\napiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: db-{number}, namespace: shop, labels: {{app: db}}}}\n\
             spec: {{address: 10.7.0.{number}, mesh: {{port: 15008}}}}\n"
        )
    };
    let plane = ControlPlane::start(&[("shop.yaml", SHOP), ("db.yaml", &database(&(pod(1) + &pod(2))))]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    let (host, single, workload) =
        ("pillion/host?name=db", "pillion/host?name=db-2.db.shop.svc.cluster.local", "10.7.0.2:5432");
    stream.subscribe(type_url::LISTENER, &[host, single, workload, "pillion/host?name=www.example.org"]).await;
    let response = stream.next().await.unwrap();
    assert_eq!(response.removed_resources, ["pillion/host?name=www.example.org"]);
    let listener = |name: &str, response: &pillion_wire::xds::discovery::DeltaDiscoveryResponse| -> Listener {
        let resource = response.resources.iter().find(|resource| resource.name == name).unwrap();
        unpack(type_url::LISTENER, resource.resource.as_ref().unwrap()).unwrap()
    };
    assert_eq!(listener(host, &response).additional_addresses.len(), 1);
    assert_eq!(listener(single, &response).additional_addresses.len(), 0);
    assert!(listener(workload, &response).default_filter_chain.is_some());
    stream.subscribe(type_url::ENDPOINTS, &[workload]).await;
    let response = stream.next().await.unwrap();
    let endpoints: ClusterLoadAssignment =
        unpack(type_url::ENDPOINTS, response.resources[0].resource.as_ref().unwrap()).unwrap();
    let metadata = endpoints.endpoints[0].lb_endpoints[0].metadata.as_ref().unwrap();
    assert_eq!(pillion_wire::mesh::MeshEndpoint::from_metadata(metadata).unwrap().unwrap().port, 15008);

    fs::write(plane.config("db.yaml"), database(&pod(1))).unwrap();
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let response = stream.next().await.unwrap();
        gone.extend(response.removed_resources.iter().cloned());
        if response.type_url == type_url::LISTENER {
            assert_eq!(listener(host, &response).additional_addresses.len(), 0, "one address is left");
        }
    }
    gone.sort();
    assert_eq!(gone, [workload, workload, single], "its endpoints and its listeners");
}

#[tokio::test]
async fn a_certificate_opens_a_stream_without_a_token() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let identity = plane.certify("shop", "orders").await;
    let channel = plane.channel(Some(&identity)).await;
    let mut stream = Delta::open(channel, None, &node("shop", "orders-1", "orders")).await.unwrap();
    stream.subscribe(type_url::LISTENER, &[&inbound("127.0.0.1:25008")]).await;
    let response = stream.next().await.unwrap();
    let listener: Listener = unpack(type_url::LISTENER, response.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(listener.filter_chains[0].name, "http-28080");
    assert_eq!(listener.filter_chains.len(), 1);
}

#[tokio::test]
async fn another_workloads_inbound_configuration_is_refused_and_counted() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    let other = inbound("127.0.0.1:25009");
    stream.subscribe(type_url::LISTENER, &[&other]).await;
    let response = stream.next().await.unwrap();
    assert!(response.resources.is_empty());
    assert_eq!(response.removed_resources, [other]);
    assert_eq!(plane.metric("pillion_control_plane_xds_refused_resources_total").await, 1.0);
    let log = fs::read_to_string(plane.dir.path().join("log")).unwrap();
    assert!(log.contains("shop/payment-1") && log.contains("sa/orders"), "{log}");
}

#[tokio::test]
async fn callers_without_or_with_false_proof_are_refused() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let stranger = Delta::open(plane.channel(None).await, None, &node("shop", "a", "orders")).await;
    assert_eq!(stranger.err().unwrap().code(), Code::Unauthenticated);

    // A stolen token is of no use for another account.
    let token = plane.token("shop", "orders");
    let mut thief =
        Delta::open(plane.channel(None).await, Some(&token), &node("shop", "payment-1", "payment")).await.unwrap();
    assert_eq!(thief.next().await.unwrap_err().code(), Code::PermissionDenied);

    let key = KeyPair::generate().unwrap();
    let payment = "spiffe://cluster.local/ns/shop/sa/payment";
    let request = csr_with(&key, |params| {
        params.subject_alt_names = vec![SanType::URI(payment.try_into().unwrap())];
    });
    let refusal = plane.ask(&token, request, 60).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert!(refusal.message().contains(payment), "{refusal}");
    let reason = "pillion_control_plane_refused_certificates_total{reason=\"other_name\"}";
    assert_eq!(plane.metric(reason).await, 1.0);
    let refusal = plane.ask("pillion.v1.x.y", csr(&key), 60).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_leaf_says_what_it_should() {
    use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let key = KeyPair::generate().unwrap();
    let token = plane.token("shop", "orders");
    let chain = plane.ask(&token, csr(&key), 4).await.unwrap();
    assert_eq!(chain.len(), 3);
    let identity = support::Identity::new(&chain, &key);
    let (_, leaf) = X509Certificate::from_der(&identity.chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/orders")]);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let validity = leaf.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 64);
    assert_eq!(leaf.raw_serial().len(), 16);
    assert!(
        leaf.extensions()
            .iter()
            .all(|extension| !matches!(extension.parsed_extension(), ParsedExtension::UnsupportedExtension { .. }))
    );
    let other = plane.ask(&token, csr(&key), 4).await.unwrap();
    assert_ne!(chain[0], other[0], "the same key twice has two serial numbers");
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_version_and_is_named() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP), ("split.yaml", &split(90))]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    stream.subscribe(type_url::ROUTE, &["orders.shop:80"]).await;
    stream.next().await.unwrap();
    fs::write(plane.config("split.yaml"), split(90).replace("weight: 90", "weight: many")).unwrap();
    assert!(stream.is_quiet(Duration::from_millis(300)).await);
    let page = plane.page("/debug/config").await;
    assert!(page.contains("spec.rules[0].backendRefs[0].weight"), "{page}");
    assert!(page.contains("\"line\": 9"), "{page}");
    assert!(page.contains("\"previous_in_force\": true"), "{page}");
    fs::write(plane.config("split.yaml"), split(40)).unwrap();
    let response = stream.next().await.unwrap();
    let routes: RouteConfiguration = unpack(type_url::ROUTE, response.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(weights(&routes), [40, 10]);
}

#[tokio::test]
async fn a_thousand_edits_end_with_the_last_one() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP), ("split.yaml", &split(1))]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    stream.subscribe(type_url::ROUTE, &["orders.shop:80"]).await;
    stream.next().await.unwrap();
    let path = plane.config("split.yaml");
    let writer = tokio::task::spawn_blocking(move || {
        for weight in 1..=1000 {
            fs::write(&path, split(weight)).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let mut pushes = 0;
    loop {
        let response = stream.next().await.unwrap();
        assert!(response.removed_resources.is_empty(), "never without a route");
        let routes: RouteConfiguration =
            unpack(type_url::ROUTE, response.resources[0].resource.as_ref().unwrap()).unwrap();
        pushes += 1;
        if weights(&routes) == [1000, 10] {
            break;
        }
    }
    writer.await.unwrap();
    assert!(pushes > 3, "edits come through while they are made: {pushes}");
    assert!(stream.is_quiet(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn what_a_client_holds_is_not_sent_again_after_a_restart() {
    use pillion_wire::xds::discovery::DeltaDiscoveryRequest;
    let mut plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    stream.subscribe(type_url::CLUSTER, &["orders.shop:80"]).await;
    let held = stream.next().await.unwrap().resources.remove(0);
    plane.restart();
    assert!(stream.next().await.is_err());
    let mut stream = open(&plane, "orders-1", "orders").await;
    let request = DeltaDiscoveryRequest {
        type_url: type_url::CLUSTER.to_owned(),
        resource_names_subscribe: vec![held.name.clone(), "payment.shop:80".to_owned()],
        initial_resource_versions: [(held.name, held.version)].into(),
        ..DeltaDiscoveryRequest::default()
    };
    stream.requests.send(request).await.unwrap();
    let response = stream.next().await.unwrap();
    let names: Vec<&str> = response.resources.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["payment.shop:80"]);
}

#[tokio::test]
async fn silent_and_half_spoken_connections_are_closed() {
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let closed = async |mut stream: tokio::net::TcpStream| {
        tokio::time::timeout(support::PATIENCE, stream.read(&mut [0; 1])).await.is_ok()
    };
    let silent = tokio::net::TcpStream::connect(plane.listen).await.unwrap();
    let config = Arc::new(support::client_config(plane.root(), None));
    let stream = tokio::net::TcpStream::connect(plane.listen).await.unwrap();
    let mut half =
        tokio_rustls::TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    half.write_all(b"PRI *").await.unwrap();
    half.flush().await.unwrap();
    let mut byte = [0; 1];
    let (first, second) = tokio::join!(closed(silent), tokio::time::timeout(support::PATIENCE, half.read(&mut byte)));
    assert!(first, "a silent connection is closed");
    assert!(second.is_ok(), "a connection that says `PRI *` and no more is closed");
    let timeouts = "pillion_control_plane_connections_total{outcome=\"preface_timeout\"}";
    assert_eq!(plane.metric(timeouts).await, 1.0);
}

#[tokio::test]
async fn it_stops_when_asked_with_streams_open() {
    let plane = ControlPlane::start(&[("shop.yaml", SHOP)]);
    let mut stream = open(&plane, "orders-1", "orders").await;
    stream.subscribe(type_url::CLUSTER, &["orders.shop:80"]).await;
    stream.next().await.unwrap();
    let status = tokio::task::spawn_blocking(move || plane.stop()).await.unwrap();
    assert!(status.success());
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
}
