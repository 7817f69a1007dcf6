//! Over real sockets: what a control plane that comes, goes and misbehaves does to us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::xds::cluster::{Cluster, cluster};
use pillion_wire::xds::core::{
    Address, AggregatedConfigSource, ConfigSource, SocketAddress, address, config_source, socket_address,
};
use pillion_wire::xds::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use pillion_wire::xds::listener::{AdditionalAddress, Filter, FilterChain, Listener, filter};
use pillion_wire::xds::tcp_proxy::{TcpProxy, tcp_proxy};
use pillion_wire::xds::{pack, type_url};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::discovery::xds::test_ads::Ads;
use crate::dns::{Lookups, Upstream as Nameservers};
use crate::identity::Identity;
use crate::identity::test_ca::{Ca, Sidecar};
use crate::slot::Slot;
use crate::snapshot::{Directory, Outbound, Target, Unresolved};
use crate::telemetry::Metrics;
use crate::tls::test_control::{CONTROL_PLANE, Server};
use crate::tls::test_pki::Authority;

const SOON: Duration = Duration::from_secs(20);
const LEDGER: &str = "ledger.shop:7000";

/// A sidecar's discovery and the control plane that it talks to.
struct World {
    ads: Ads,
    ca: Ca,
    server: Option<Server>,
    address: SocketAddr,
    _sidecar: Sidecar,
    identity: Arc<Slot<Option<Identity>>>,
    inbound: Arc<Slot<Option<Inbound>>>,
    directory: Directory,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<Infallible>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    async fn start() -> Self {
        Self::with(Ads::new()).await
    }

    async fn with(ads: Ads) -> Self {
        let ca = Ca::new();
        let server = serve(&ads, &ca.authority, SocketAddr::from(([127, 0, 0, 1], 0)), CONTROL_PLANE).await;
        let address = server.address;
        let sidecar = Sidecar::new(&ca.authority, address, &[]);
        let (identity, outbound) = (Arc::new(Slot::new(None)), Arc::new(Slot::new(Outbound::default())));
        let (inbound, metrics) = (Arc::new(Slot::new(None)), Arc::new(Metrics::new()));
        let (sender, demand) = mpsc::channel(crate::discovery::DEMAND_CAPACITY);
        let directory = Directory::new(Arc::clone(&outbound), sender);
        let task = tokio::spawn(crate::discovery::run(Context {
            bootstrap: Arc::clone(&sidecar.bootstrap),
            identity: Arc::clone(&identity),
            demand,
            outbound,
            inbound: Arc::clone(&inbound),
            metrics: Arc::clone(&metrics),
            load: Arc::new(crate::telemetry::load::Load::new(false)),
            store: None,
            naming: crate::discovery::Naming {
                lookups: Arc::new(Lookups::new(Nameservers::fixed(vec![]), vec![], Arc::clone(&metrics))),
                resolutions: Arc::default(),
            },
            ledger: Arc::default(),
            link: tokio::sync::watch::Sender::new(None),
        }));
        Self { ads, ca, server: Some(server), address, _sidecar: sidecar, identity, inbound, directory, metrics, task }
    }

    fn kill(&mut self) {
        self.server = None;
    }

    async fn restart(&mut self) {
        self.server = Some(serve(&self.ads, &self.ca.authority, self.address, CONTROL_PLANE).await);
    }

    /// A destination with one cluster of that name and `ports` as its endpoints.
    fn define(&self, name: &str, ports: &[u16]) {
        self.ads.set(name, type_url::ENDPOINTS, Some(pack(type_url::ENDPOINTS, &assignment(name, ports))));
        self.ads.set(name, type_url::CLUSTER, Some(pack(type_url::CLUSTER, &eds(name))));
        self.ads.set(name, type_url::LISTENER, Some(pack(type_url::LISTENER, &tcp(name))));
    }

    async fn resolve(&self, name: &str) -> Result<Arc<Target>, Unresolved> {
        self.directory.resolve(&name.parse().expect("literal"), SOON).await
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !reached(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_elapsed| panic!("not in time: {what}"));
    }

    fn streams(&self) -> usize {
        self.ads.look(|state| state.streams.len())
    }
}

async fn serve(ads: &Ads, authority: &Authority, address: SocketAddr, id: &str) -> Server {
    Server::start(address, authority, id, ads.routes()).await
}

fn tcp(name: &str) -> Listener {
    let proxy =
        TcpProxy { cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(name.into())), ..TcpProxy::default() };
    let config_type = Some(filter::ConfigType::TypedConfig(pack(type_url::TCP_PROXY, &proxy)));
    let filters = vec![Filter { name: String::new(), config_type }];
    let default_filter_chain = Some(FilterChain { filters, ..FilterChain::default() });
    Listener { name: name.into(), default_filter_chain, ..Listener::default() }
}

fn eds(name: &str) -> Cluster {
    let ads = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    let source = ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() };
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(3)),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(source), ..Default::default() }),
        ..Cluster::default()
    }
}

fn bound(ip: &str, port: u16) -> Address {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(port.into()));
    let socket = SocketAddress { address: ip.into(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn assignment(name: &str, ports: &[u16]) -> ClusterLoadAssignment {
    let host = |port: &u16| {
        let endpoint = Endpoint { address: Some(bound("127.0.0.1", *port)), ..Endpoint::default() };
        LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
    };
    let lb_endpoints = ports.iter().map(host).collect();
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }];
    ClusterLoadAssignment { cluster_name: name.into(), endpoints, ..ClusterLoadAssignment::default() }
}

fn hosts(target: &Target) -> usize {
    let split = target.tcp.as_ref().expect("tcp");
    split.clusters().map(|(_, cluster)| cluster.upstream.hosts().len()).sum()
}

#[tokio::test]
async fn a_destination_is_found_on_demand_and_followed() {
    let world = World::start().await;
    world.define(LEDGER, &[1]);
    let target = world.resolve(LEDGER).await.expect("known");
    assert_eq!(hosts(&target), 1);
    world.define(LEDGER, &[1, 2]);
    world.until("two endpoints", |_| hosts(&target) == 2).await;
    assert_eq!(world.resolve("nobody.shop:1").await.expect_err("unknown"), Unresolved::Unknown);
    world.define("nobody.shop:1", &[1]);
    world
        .until("it appears", |world| {
            let name = "nobody.shop:1".parse().expect("literal");
            matches!(world.directory.outbound().load().targets.get(&name), Some(crate::snapshot::Lookup::Known(_)))
        })
        .await;
}

/// A host's listener with these addresses.
fn located(name: &str, addresses: &[&str]) -> Listener {
    let mut addresses = addresses.iter().map(|address| bound(address, 0));
    Listener {
        name: name.into(),
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..AdditionalAddress::default() })
            .collect(),
        ..Listener::default()
    }
}

#[tokio::test]
async fn a_host_is_found_on_demand_and_followed() {
    let world = World::start().await;
    let name = "pillion/host?name=ledger.shop";
    let define = |addresses: Option<&[&str]>| {
        let content = addresses.map(|addresses| pack(type_url::LISTENER, &located(name, addresses)));
        world.ads.set(name, type_url::LISTENER, content);
    };
    define(Some(&["240.240.0.1", "fdf0:7069:6c6c::1"]));
    let look = async |host: &str| {
        let found = world.directory.host(host, SOON).await?;
        Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(look("Ledger.Shop.").await, Ok("240.240.0.1 fdf0:7069:6c6c::1".to_owned()), "in any spelling");
    assert_eq!(look("nobody.shop").await, Err(Unresolved::Unknown));
    assert_eq!(look("no name").await, Err(Unresolved::Unknown));
    assert_eq!(look("10.0.0.1").await, Err(Unresolved::Unknown));
    let known = |world: &World| match world.directory.outbound().load().hosts.get("ledger.shop") {
        Some(crate::snapshot::Lookup::Known(addresses)) => Some(addresses.len()),
        _ => None,
    };
    define(Some(&["240.240.0.2"]));
    world.until("a new address", |world| known(world) == Some(1)).await;
    define(Some(&[]));
    world.until("no address", |world| known(world) == Some(0)).await;
    define(None);
    world.until("gone", |world| known(world).is_none()).await;
    assert_eq!(look("ledger.shop").await, Err(Unresolved::Unknown));
}

#[tokio::test]
async fn without_a_mesh_port_an_accepted_stream_is_all_that_readiness_needs() {
    let world = World::start().await;
    world.until("configured", |world| world.inbound.load().is_some()).await;
    assert!(world.metrics.encode().contains("pillion_xds_connected 1"));
}

#[tokio::test]
async fn what_is_held_survives_the_control_plane_and_only_changes_are_sent_again() {
    let mut world = World::start().await;
    world.define(LEDGER, &[1]);
    let target = world.resolve(LEDGER).await.expect("known");
    world.kill();
    world.until("noticed", |world| world.metrics.encode().contains("pillion_xds_connected 0")).await;
    assert!(Arc::ptr_eq(&target, &world.resolve(LEDGER).await.expect("still known")));
    world.ads.look(|state| state.requests.clear());
    let mut publications = world.directory.outbound().subscribe();
    publications.mark_unchanged();
    world.ads.set(LEDGER, type_url::ENDPOINTS, Some(pack(type_url::ENDPOINTS, &assignment(LEDGER, &[1, 2, 3]))));
    world.restart().await;
    world.until("the change arrives", |_| hosts(&target) == 3).await;
    let requests = world.ads.look(|state| state.requests.clone());
    let first: Vec<_> = requests.iter().filter(|request| !request.resource_names_subscribe.is_empty()).collect();
    assert_eq!(first.len(), 3, "listener, cluster and endpoints are asked for again");
    for request in first {
        assert_eq!(request.resource_names_subscribe, [LEDGER]);
        assert!(request.initial_resource_versions.contains_key(LEDGER), "{request:?}");
    }
    world
        .until("the answer is acknowledged", |world| {
            world
                .ads
                .look(|state| state.requests.iter().filter(|request| !request.response_nonce.is_empty()).count() == 1)
        })
        .await;
    assert!(!publications.has_changed().expect("alive"), "nothing else was sent, or rebuilt");
}

#[tokio::test]
async fn that_a_destination_is_unknown_is_not_forgotten_while_nobody_can_be_asked() {
    let mut world = World::start().await;
    assert!(matches!(world.resolve("192.0.2.1:443").await, Err(Unresolved::Unknown)));
    world.kill();
    world.until("it is cut off", |world| world.metrics.encode().contains("pillion_xds_connected 0")).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    assert!(matches!(world.resolve("192.0.2.1:443").await, Err(Unresolved::Unknown)));
}

#[tokio::test]
async fn a_control_plane_that_refuses_is_not_stormed() {
    let ads = Ads::new();
    ads.look(|state| state.refuse = Some(Status::unauthenticated("who are you?")));
    let world = World::with(ads).await;
    sleep(Duration::from_millis(2500)).await;
    let times: Vec<_> = world.ads.look(|state| state.streams.iter().map(|(at, _)| *at).collect());
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((2..=5).contains(&waits.len()), "{waits:?}");
    for (failures, wait) in waits.iter().enumerate() {
        let shortest = Duration::from_millis(100 << failures);
        assert!(*wait >= shortest, "attempt {failures} came after {wait:?}");
    }
    let text = world.metrics.encode();
    assert!(text.contains("pillion_xds_connects_total{result=\"refused\"}"), "{text}");
}

#[tokio::test]
async fn the_token_is_shown_until_there_is_a_certificate() {
    let mut world = World::start().await;
    world.until("first stream", |world| world.streams() == 1).await;
    let ca = world.ca.start().await;
    let sidecar = Sidecar::new(&world.ca.authority, ca.address, &[]);
    let issued = crate::identity::issue::issue(&sidecar.bootstrap, None, 0).await.expect("issued").identity;
    let id = issued.id.clone();
    world.identity.publish(Some(issued));
    world.kill();
    world.restart().await;
    world.until("second stream", |world| world.streams() == 2).await;
    let tokens: Vec<_> = world.ads.look(|state| state.streams.iter().map(|(_, token)| token.clone()).collect());
    assert_eq!(tokens, [Some("Bearer pillion.v1.token".to_owned()), None]);
    let peers = world.server.as_ref().expect("running").peers.lock().expect("not poisoned").clone();
    assert_eq!(peers, [Some(id)]);
}

#[tokio::test]
async fn nothing_is_said_to_an_impostor() {
    let mut world = World::start().await;
    world.until("first stream", |world| world.streams() == 1).await;
    world.kill();
    let impostor = Ads::new();
    let orders = "spiffe://cluster.local/ns/shop/sa/orders";
    world.server = Some(serve(&impostor, &world.ca.authority, world.address, orders).await);
    world.until("tried", |world| world.metrics.encode().contains("{result=\"handshake\"}")).await;
    assert_eq!(impostor.look(|state| state.streams.len()), 0);
}

#[tokio::test]
async fn a_silent_control_plane_is_given_up_after_a_deadline() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let ca = Ca::new();
    let sidecar = Sidecar::new(&ca.authority, silent.local_addr().expect("bound"), &[]);
    let begun = Instant::now();
    let opened = timeout(SOON, client::open(&sidecar.bootstrap, None, 0)).await.expect("in time");
    let error = opened.err().expect("no stream");
    assert!(error.to_string().contains("within 5s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_refused_resource_is_named_in_the_nack_and_its_neighbours_are_used() {
    let world = World::start().await;
    let mut wrong = eds("bad.shop:1");
    wrong.lb_policy = 6;
    world.define(LEDGER, &[1]);
    world.define("bad.shop:1", &[1]);
    world.ads.set("bad.shop:1", type_url::CLUSTER, Some(pack(type_url::CLUSTER, &wrong)));
    let bad = "bad.shop:1".parse().expect("literal");
    let short = Duration::from_millis(300);
    assert_eq!(world.directory.resolve(&bad, short).await.expect_err("not usable"), Unresolved::Timeout);
    assert_eq!(hosts(&world.resolve(LEDGER).await.expect("known")), 1);
    let nacks: Vec<_> = world.ads.look(|state| {
        state.requests.iter().filter_map(|request| request.error_detail.clone()).map(|status| status.message).collect()
    });
    assert_eq!(nacks, ["bad.shop:1: lb_policy: is not supported"]);
    // Put right, it is taken.
    world.define("bad.shop:1", &[1, 2]);
    assert_eq!(hosts(&world.resolve("bad.shop:1").await.expect("known")), 2);
}

#[tokio::test]
async fn a_response_of_several_megabytes_is_taken() {
    let world = World::start().await;
    world.define(LEDGER, &[1]);
    let target = world.resolve(LEDGER).await.expect("known");
    // gRPC's default limit is 4 MiB.
    let mut large = assignment(LEDGER, &(1..=60_000).collect::<Vec<u16>>());
    large.endpoints[0].lb_endpoints.iter_mut().for_each(|host| {
        if let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &mut host.host_identifier {
            endpoint.hostname = "x".repeat(80);
        }
    });
    let packed = pack(type_url::ENDPOINTS, &large);
    assert!(packed.value.len() > 5 << 20, "{}", packed.value.len());
    world.ads.set(LEDGER, type_url::ENDPOINTS, Some(packed));
    world.until("all endpoints", |_| hosts(&target) == 60_000).await;
}
