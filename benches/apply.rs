//! Applying configuration: from the bytes of an endpoints resource to the hosts that requests are balanced over.
//!
//! Ten times as many endpoints should take ten times as long.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pillion_proxy::config::{Cluster, OutboundListener, Split, UpstreamProtocol};
use pillion_proxy::discovery::assemble::Assembly;
use pillion_proxy::discovery::xds::translate;
use pillion_proxy::discovery::{Change, Config, Kind, Update};
use pillion_proxy::snapshot::Demand;
use pillion_wire::mesh::MeshEndpoint;
use pillion_wire::xds::core::{Address, SocketAddress, address, socket_address};
use pillion_wire::xds::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use pillion_wire::xds::{Any, pack, type_url};
use tokio::time::Instant;

const NAME: &str = "orders.shop:80";

criterion_group!(benches, endpoints);
criterion_main!(benches);

fn endpoints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply/endpoints");
    group.sample_size(20);
    for count in [1_000_u32, 10_000] {
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let mut assembly = assembly();
            // They differ in one endpoint: what has not changed at all is passed over.
            let versions = [assignment(0..count), assignment(1..count + 1)];
            let mut next = versions.iter().cycle();
            bencher.iter(|| apply(&mut assembly, next.next().expect("a cycle never ends")));
        });
    }
    group.finish();
}

fn apply(assembly: &mut Assembly, content: &Any) {
    let config = translate::resource(Kind::Endpoints, NAME, content).expect("valid");
    tell(assembly, Kind::Endpoints, config);
    assembly.poll_output();
}

fn tell(assembly: &mut Assembly, kind: Kind, config: Config) {
    let update = Update { kind, name: NAME.to_owned(), change: Change::Accepted(config) };
    assembly.handle_update(update, Instant::now());
    assembly.poll_output();
}

/// One destination that leads to one cluster, which waits for its endpoints.
fn assembly() -> Assembly {
    let mut assembly = Assembly::new(None, false, Duration::from_secs(600));
    let destination = NAME.parse::<pillion_wire::name::Destination>().expect("literal");
    assembly.handle_demand(Demand::Destination(destination.clone()), Instant::now());
    let listener = OutboundListener {
        destination,
        http: None,
        filters: Vec::new(),
        tcp: Some(Split::one(NAME)),
        tls: Vec::new(),
        origins: Default::default(),
    };
    tell(&mut assembly, Kind::Listener, Config::Outbound(listener));
    let cluster = Cluster { protocol: UpstreamProtocol::Http1, ..Cluster::new(NAME) };
    tell(&mut assembly, Kind::Cluster, Config::Cluster(cluster));
    assembly
}

fn assignment(numbers: std::ops::Range<u32>) -> Any {
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints: numbers.map(host).collect(), ..Default::default() }];
    let message = ClusterLoadAssignment { cluster_name: NAME.to_owned(), endpoints, ..Default::default() };
    pack(type_url::ENDPOINTS, &message)
}

fn host(number: u32) -> LbEndpoint {
    let socket = SocketAddress {
        address: Ipv4Addr::from_bits(0x0a00_0001 + number).to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(8080)),
        ..Default::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().expect("literal");
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint { address, ..Default::default() })),
        metadata: Some(MeshEndpoint { port: 15008, identity }.to_metadata()),
        ..Default::default()
    }
}
