//! The families of Istio ("Istio Standard Metrics"), for dashboards that exist. What cannot be known is `unknown`, as
//! there.

use pillion_wire::exposition::{Family, Histogram, Kind, Labels, Text, Value};
use pillion_wire::spiffe::SpiffeId;

use super::about::About;
use super::count::{BYTES, Distribution, OTHER, RequestKey, Requests, SECONDS};
use super::families::{family, labels, number, sum};
use super::traffic::Tables;

const UNKNOWN: &str = "unknown";

/// [`SECONDS`] in milliseconds.
static MILLISECONDS: [f64; SECONDS.len()] =
    [0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0, 30_000.0];

/// All of them.
pub(super) fn of(tables: &Tables, us: &About) -> Vec<Family> {
    let http = || tables.requests.iter().filter(|(key, _)| !key.is_tcp);
    let grpc = || http().filter(|(key, _)| key.grpc_status.is_some());
    let tcp = || tables.requests.iter().filter(|(key, _)| key.is_tcp);
    let each = |key: &RequestKey| Some(standard(key, us));
    let sizes = |sizes: &Distribution<9>| Value::Histogram(sizes.histogram(&BYTES));
    vec![
        family("istio_requests", "Requests.", Kind::Counter, sum(http(), each, |counted| number(counted.count))),
        family(
            "istio_request_duration_milliseconds",
            "Duration of requests.",
            Kind::Histogram,
            sum(http(), each, |counted| Value::Histogram(milliseconds(counted))),
        ),
        family(
            "istio_request_bytes",
            "Content of requests.",
            Kind::Histogram,
            sum(http(), each, |counted| sizes(&counted.received)),
        ),
        family(
            "istio_response_bytes",
            "Content of responses.",
            Kind::Histogram,
            sum(http(), each, |counted| sizes(&counted.sent)),
        ),
        family(
            "istio_request_messages",
            "Messages of clients of gRPC.",
            Kind::Counter,
            sum(grpc(), each, |counted| number(counted.request_messages)),
        ),
        family(
            "istio_response_messages",
            "Messages of servers of gRPC.",
            Kind::Counter,
            sum(grpc(), each, |counted| number(counted.response_messages)),
        ),
        family(
            "istio_tcp_sent_bytes",
            "Bytes sent to clients of TCP.",
            Kind::Counter,
            sum(tcp(), each, |counted| Value::Number(counted.sent.sum)),
        ),
        family(
            "istio_tcp_received_bytes",
            "Bytes received from clients of TCP.",
            Kind::Counter,
            sum(tcp(), each, |counted| Value::Number(counted.received.sum)),
        ),
        family(
            "istio_tcp_connections_opened",
            "TCP connections opened.",
            Kind::Counter,
            sum(tcp(), each, |counted| number(counted.opened)),
        ),
        family(
            "istio_tcp_connections_closed",
            "TCP connections closed.",
            Kind::Counter,
            sum(tcp(), each, |counted| number(counted.count)),
        ),
    ]
}

fn milliseconds(counted: &Requests) -> Histogram {
    let seconds = counted.durations();
    let mut exemplars = seconds.exemplars;
    for exemplar in exemplars.iter_mut().flatten() {
        exemplar.value *= 1000.0;
    }
    Histogram { bounds: MILLISECONDS.as_slice().into(), sum: seconds.sum * 1000.0, exemplars, ..seconds }
}

/// The labels of Istio, in its order.
fn standard(key: &RequestKey, us: &About) -> Labels {
    let is_source = key.direction == "outbound";
    let peer = Side::of_peer(&key.peer);
    let own = Side::own(us);
    let (source, destination) = if is_source { (&own, &peer) } else { (&peer, &own) };
    let (service, name, namespace) =
        if is_source { service(&key.destination, us) } else { [(); 3].map(|()| unknown()).into() };
    let security = match (is_source, key.tls) {
        (true, _) => UNKNOWN, // As in Istio: only the server knows for sure.
        (false, "mutual") => "mutual_tls",
        (false, _) => "none",
    };
    let protocol = match (key.is_tcp, key.grpc_status) {
        (true, _) => "tcp",
        (false, Some(_)) => "grpc",
        (false, None) => "http",
    };
    let mut all = labels([
        ("reporter", if is_source { "source" } else { "destination" }.into()),
        ("source_workload", source.workload.clone()),
        ("source_canonical_service", source.workload.clone()),
        ("source_canonical_revision", "latest".into()),
        ("source_workload_namespace", source.namespace.clone()),
        ("source_principal", source.principal.clone()),
        ("source_app", source.workload.clone()),
        ("source_version", unknown()),
        ("source_cluster", unknown()),
        ("destination_workload", destination.workload.clone()),
        ("destination_workload_namespace", destination.namespace.clone()),
        ("destination_principal", destination.principal.clone()),
        ("destination_app", destination.workload.clone()),
        ("destination_version", unknown()),
        ("destination_service", service),
        ("destination_canonical_service", destination.workload.clone()),
        ("destination_canonical_revision", "latest".into()),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("destination_cluster", unknown()),
        ("request_protocol", protocol.into()),
        ("response_flags", if key.flag.is_empty() { "-" } else { key.flag }.into()),
        ("connection_security_policy", security.into()),
    ]);
    if !key.is_tcp {
        let grpc = key.grpc_status.filter(|status| *status != u8::MAX);
        all.extend(labels([
            ("response_code", key.status.to_string().into()),
            ("grpc_response_status", grpc.map_or_else(|| Text::from(""), |status| status.to_string().into())),
        ]));
    }
    all
}

struct Side {
    workload: Text,
    namespace: Text,
    principal: Text,
}

impl Side {
    fn own(us: &About) -> Self {
        Self { workload: (&us.workload).into(), namespace: (&us.namespace).into(), principal: (&us.identity).into() }
    }

    /// An identity says the namespace and the service account, not the workload.
    fn of_peer(peer: &std::sync::Arc<str>) -> Self {
        let id = peer.parse::<SpiffeId>().ok();
        Self {
            workload: unknown(),
            namespace: id.as_ref().map_or_else(unknown, |id| id.namespace().to_owned().into()),
            principal: if id.is_some() { peer.into() } else { unknown() },
        }
    }
}

fn unknown() -> Text {
    UNKNOWN.into()
}

/// Host, name and namespace of the Service that a destination (`orders.shop:80`) is.
fn service(destination: &str, us: &About) -> (Text, Text, Text) {
    let host = destination.rsplit_once(':').map_or(destination, |(host, _)| host);
    if host.is_empty() || destination == OTHER {
        return (unknown(), unknown(), unknown());
    }
    if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return (host.to_owned().into(), unknown(), unknown());
    }
    let mut parts = host.split('.');
    let name = parts.next().unwrap_or(host);
    let namespace = parts.next().map_or_else(|| Text::from(&us.namespace), |namespace| namespace.to_owned().into());
    let full = format!("{name}.{}.svc.cluster.local", &*namespace);
    (full.into(), name.to_owned().into(), namespace)
}
