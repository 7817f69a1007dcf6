//! `Cluster.health_checks`: Envoy's field, for our own sidecars, too. gRPC clients check nothing so, and get none.

use pillion_wire::{
    health::{HealthCheck, Probe},
    setting,
    xds::{
        BoolValue, UInt32Value,
        cluster::Cluster,
        core::{
            HealthCheck as PbHealthCheck, RequestMethod,
            health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload},
        },
        envoy_type::{CodecClientType, Int64Range, Percent},
        value::Kind,
    },
};

use super::duration;
use crate::{
    core::{policy, protocol::Protocol, view::PortView},
    xds::dialect::Dialect,
};

/// Adds the check that the policy asks for, where it can be made.
pub(super) fn apply(cluster: &mut Cluster, view: &PortView, dialect: Dialect, secured: bool) {
    let Some(check) = view.policy.health.as_ref().filter(|_| dialect != Dialect::Grpc) else { return };
    if !policy::health::fits(&check.probe, view.protocol) {
        return; // It would always fail; the policy's author is told.
    }
    // Towards a sidecar Envoy negotiates `h2`, whatever the application speaks.
    let http2 = secured || matches!(view.protocol, Protocol::H2c | Protocol::Grpc);
    cluster.health_checks = vec![message(check, http2)];
    // An endpoint that is gone is gone, and not used for as long as it still answers.
    cluster.ignore_health_on_host_removal = true;
    match dialect {
        Dialect::Pillion if check.keep == 0 => {
            setting::set(&mut cluster.metadata, HealthCheck::KEEP, Kind::NumberValue(0.0));
        }
        Dialect::Envoy => keep(cluster, check.keep),
        Dialect::Pillion | Dialect::Grpc => {}
    }
}

/// To Envoy it is the panic threshold, whose default of 50 would bring unhealthy endpoints back long before all are.
fn keep(cluster: &mut Cluster, keep: u32) {
    let threshold = &mut cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold;
    if threshold.as_ref().is_none_or(|threshold| threshold.value == 0.0) {
        *threshold = Some(Percent { value: keep.min(1).into() });
    }
}

fn message(check: &HealthCheck, http2: bool) -> PbHealthCheck {
    let threshold = |value| Some(UInt32Value { value });
    PbHealthCheck {
        interval: Some(duration(check.interval)),
        timeout: Some(duration(check.timeout)),
        unhealthy_threshold: threshold(check.unhealthy_threshold),
        healthy_threshold: threshold(check.healthy_threshold),
        interval_jitter: Some(duration(check.jitter)),
        initial_jitter: Some(duration(check.initial_jitter)),
        unhealthy_interval: Some(duration(check.unhealthy_interval)),
        no_traffic_interval: Some(duration(check.no_traffic_interval)),
        reuse_connection: Some(BoolValue { value: check.reuse }),
        health_checker: Some(checker(&check.probe, http2)),
        ..PbHealthCheck::default()
    }
}

fn checker(probe: &Probe, http2: bool) -> HealthChecker {
    match probe {
        Probe::Http(probe) => {
            let ranges = |ranges: &[std::ops::Range<u16>]| {
                let range =
                    |range: &std::ops::Range<u16>| Int64Range { start: range.start.into(), end: range.end.into() };
                ranges.iter().map(range).collect()
            };
            let codec = if http2 { CodecClientType::Http2 } else { CodecClientType::Http1 };
            let method = if probe.head_only { RequestMethod::Head } else { RequestMethod::Get };
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                host: probe.host.clone(),
                path: probe.path.clone(),
                expected_statuses: ranges(&probe.expected),
                retriable_statuses: ranges(&probe.retriable),
                codec_client_type: codec.into(),
                method: method.into(),
                ..HttpHealthCheck::default()
            })
        }
        Probe::Grpc { service, authority } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.clone(),
            authority: authority.clone(),
            ..GrpcHealthCheck::default()
        }),
        Probe::Tcp { send, receive } => HealthChecker::TcpHealthCheck(TcpHealthCheck {
            send: (!send.is_empty()).then(|| payload(send)),
            receive: receive.iter().map(|block| payload(block)).collect(),
            ..TcpHealthCheck::default()
        }),
    }
}

/// Hexadecimal: versions of Envoy that know no other form are still about.
fn payload(bytes: &[u8]) -> Payload {
    let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Payload { payload: Some(payload::Payload::Text(text)) }
}
