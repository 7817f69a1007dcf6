//! Active health checks of a cluster (`Cluster.health_checks`).

use std::ops::Range;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use pillion_wire::health::{HealthCheck, HttpProbe, Probe};
use pillion_wire::setting;
use pillion_wire::xds::cluster::OutlierDetection;
use pillion_wire::xds::core::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload,
};
use pillion_wire::xds::core::{HealthCheck as PbHealthCheck, Metadata, RequestMethod};
use pillion_wire::xds::envoy_type::{CodecClientType, Int64Range};
use pillion_wire::xds::{Duration as PbDuration, UInt32Value, value::Kind};

use super::at::{At, Reason, Refusal, duration, pass_over, refuse};

/// Bytes that a TCP check may send, or wait for in one piece.
const MOST_BYTES: usize = 4096;

/// How hosts are checked; `None`: not at all. One check per cluster.
pub(super) fn health(
    at: &At<'_>,
    checks: Vec<PbHealthCheck>,
    metadata: Option<&Metadata>,
) -> Result<Option<Arc<HealthCheck>>, Refusal> {
    let list = &at.field("health_checks");
    if checks.len() > 1 {
        return Err(list.index(1).refuse(Reason::Unsupported));
    }
    let Some(told) = checks.into_iter().next() else { return Ok(None) };
    let mut check = check(&list.index(0), told)?;
    match setting::get(metadata, HealthCheck::KEEP) {
        None => {}
        Some(Kind::NumberValue(keep)) if *keep == 0.0 || *keep == 1.0 => check.keep = *keep as u32,
        Some(_) => {
            return Err(at.field("metadata").invalid("has a healthChecksMinimumHealthy that is neither 0 nor 1"));
        }
    }
    Ok(Some(Arc::new(check)))
}

/// Outlier detection goes its own way: a check that passes says nothing of the requests that failed. Envoy's default is
/// otherwise, and who insists on it is refused.
pub(super) fn beside(at: &At<'_>, outlier: Option<&OutlierDetection>) -> Result<(), Refusal> {
    let unejects = outlier.and_then(|outlier| outlier.successful_active_health_check_uneject_host);
    if unejects.is_some_and(|unejects| unejects.value) {
        let at = &at.field("outlier_detection");
        return Err(at.field("successful_active_health_check_uneject_host").refuse(Reason::Unsupported));
    }
    Ok(())
}

fn check(at: &At<'_>, told: PbHealthCheck) -> Result<HealthCheck, Refusal> {
    refuse!(at, told;
        alt_port, no_traffic_healthy_interval, unhealthy_edge_interval, healthy_edge_interval, tls_options,
        transport_socket_match_criteria);
    pass_over!(at, told; event_logger, event_service, always_log_health_check_failures, always_log_health_check_success);
    let longer_than_0 = |name, given: Option<PbDuration>| {
        let at = &at.field(name);
        let given = given.map(|given| duration(at, given)).transpose()?;
        if given.is_some_and(|given| given.is_zero()) {
            return Err(at.invalid("has to be longer than 0"));
        }
        Ok(given)
    };
    let threshold = |name, given: Option<UInt32Value>| {
        let at = &at.field(name);
        match at.required(given)?.value {
            0 => Err(at.invalid("has to be at least 1")),
            given => Ok(given),
        }
    };
    let jitter = |name, given: Option<PbDuration>| {
        let at = &at.field(name);
        given.map(|given| duration(at, given)).transpose().map(Option::unwrap_or_default)
    };
    let interval = at.field("interval").required(longer_than_0("interval", told.interval)?)?;
    let percent = &at.field("interval_jitter_percent");
    if told.interval_jitter_percent > 1000 {
        return Err(percent.invalid("is more than 1000"));
    }
    Ok(HealthCheck {
        interval,
        timeout: at.field("timeout").required(longer_than_0("timeout", told.timeout)?)?,
        unhealthy_threshold: threshold("unhealthy_threshold", told.unhealthy_threshold)?,
        healthy_threshold: threshold("healthy_threshold", told.healthy_threshold)?,
        // Envoy adds both.
        jitter: jitter("interval_jitter", told.interval_jitter)? + interval / 100 * told.interval_jitter_percent,
        initial_jitter: jitter("initial_jitter", told.initial_jitter)?,
        unhealthy_interval: longer_than_0("unhealthy_interval", told.unhealthy_interval)?.unwrap_or(interval),
        no_traffic_interval: longer_than_0("no_traffic_interval", told.no_traffic_interval)?
            .unwrap_or(HealthCheck::NO_TRAFFIC_INTERVAL),
        reuse: told.reuse_connection.is_none_or(|reuse| reuse.value),
        ..HealthCheck::new(match told.health_checker {
            Some(HealthChecker::HttpHealthCheck(told)) => http(&at.field("http_health_check"), told)?,
            Some(HealthChecker::GrpcHealthCheck(told)) => grpc(&at.field("grpc_health_check"), told)?,
            Some(HealthChecker::TcpHealthCheck(told)) => tcp(&at.field("tcp_health_check"), told)?,
            Some(HealthChecker::CustomHealthCheck(_)) => {
                return Err(at.field("custom_health_check").refuse(Reason::Unsupported));
            }
            None => return Err(at.field("health_checker").refuse(Reason::Missing)),
        })
    })
}

fn http(at: &At<'_>, told: HttpHealthCheck) -> Result<Probe, Refusal> {
    refuse!(at, told; send, receive, request_headers_to_add, service_name_matcher);
    pass_over!(at, told; response_buffer_size, request_headers_to_remove);
    let http2 = match CodecClientType::try_from(told.codec_client_type) {
        Ok(CodecClientType::Http1) => false,
        Ok(CodecClientType::Http2) => true,
        Ok(CodecClientType::Http3) | Err(_) => return Err(at.field("codec_client_type").refuse(Reason::Unsupported)),
    };
    let head_only = match RequestMethod::try_from(told.method) {
        Ok(RequestMethod::MethodUnspecified | RequestMethod::Get) => false,
        Ok(RequestMethod::Head) => true,
        Ok(_) | Err(_) => return Err(at.field("method").refuse(Reason::Unsupported)),
    };
    let path = &at.field("path");
    let told_path = path.filled(told.path)?;
    if !told_path.starts_with('/') || told_path.parse::<PathAndQuery>().is_err() {
        return Err(path.invalid("is no path"));
    }
    let mut expected = ranges(&at.field("expected_statuses"), &told.expected_statuses)?;
    if expected.is_empty() {
        expected.push(HttpProbe::EXPECTED);
    }
    let retriable = ranges(&at.field("retriable_statuses"), &told.retriable_statuses)?;
    let host = authority(&at.field("host"), told.host)?;
    Ok(Probe::Http(HttpProbe { path: told_path, host, head_only, expected, retriable, http2 }))
}

fn grpc(at: &At<'_>, told: GrpcHealthCheck) -> Result<Probe, Refusal> {
    refuse!(at, told; initial_metadata);
    Ok(Probe::Grpc { service: told.service_name, authority: authority(&at.field("authority"), told.authority)? })
}

fn tcp(at: &At<'_>, told: TcpHealthCheck) -> Result<Probe, Refusal> {
    refuse!(at, told; proxy_protocol_config);
    let send = told.send.map(|send| bytes(&at.field("send"), send)).transpose()?.unwrap_or_default();
    let at = &at.field("receive");
    let receive = told.receive.into_iter().enumerate().map(|(index, block)| bytes(&at.index(index), block));
    Ok(Probe::Tcp { send, receive: receive.collect::<Result<_, _>>()? })
}

/// `text` is hexadecimal.
fn bytes(at: &At<'_>, told: Payload) -> Result<Vec<u8>, Refusal> {
    let bytes = match at.required(told.payload)? {
        payload::Payload::Binary(bytes) => bytes,
        payload::Payload::Text(text) => {
            let digit = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
            let pair = |pair: &[u8]| match pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            };
            let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
            bytes.ok_or_else(|| at.field("text").invalid("is not hexadecimal"))?
        }
    };
    if bytes.is_empty() || bytes.len() > MOST_BYTES {
        return Err(at.invalid("has to be from 1 to 4096 bytes"));
    }
    Ok(bytes)
}

/// `[start, end)`, as Envoy has them, within what HTTP has.
fn ranges(at: &At<'_>, told: &[Int64Range]) -> Result<Vec<Range<u16>>, Refusal> {
    let range = |(index, told): (usize, &Int64Range)| {
        let all = i64::from(HttpProbe::ALL.start)..i64::from(HttpProbe::ALL.end) + 1;
        match (u16::try_from(told.start), u16::try_from(told.end)) {
            (Ok(start), Ok(end)) if start < end && all.contains(&told.start) && all.contains(&told.end) => {
                Ok(start..end)
            }
            _ => Err(at.index(index).invalid("is no range of HTTP statuses")),
        }
    };
    told.iter().enumerate().map(range).collect()
}

fn authority(at: &At<'_>, told: String) -> Result<String, Refusal> {
    let is_authority = told.is_empty() || (told.parse::<Authority>().is_ok() && !told.contains('@'));
    if is_authority { Ok(told) } else { Err(at.invalid("is no host or host:port")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seconds(seconds: i64) -> Option<PbDuration> {
        Some(PbDuration { seconds, nanos: 0 })
    }

    fn message(checker: HealthChecker) -> PbHealthCheck {
        PbHealthCheck {
            interval: seconds(5),
            timeout: seconds(2),
            unhealthy_threshold: Some(UInt32Value { value: 4 }),
            healthy_threshold: Some(UInt32Value { value: 2 }),
            health_checker: Some(checker),
            ..PbHealthCheck::default()
        }
    }

    fn of_http(told: HttpHealthCheck) -> PbHealthCheck {
        message(HealthChecker::HttpHealthCheck(HttpHealthCheck { path: "/up".into(), ..told }))
    }

    fn of_tcp(text: &str) -> PbHealthCheck {
        let payload = |text: &str| Payload { payload: Some(payload::Payload::Text(text.into())) };
        let binary = Payload { payload: Some(payload::Payload::Binary(b"b".to_vec())) };
        let receive = vec![payload("fF00"), binary];
        message(HealthChecker::TcpHealthCheck(TcpHealthCheck {
            send: Some(payload(text)),
            receive,
            ..TcpHealthCheck::default()
        }))
    }

    fn read(told: PbHealthCheck) -> Result<HealthCheck, String> {
        let read = health(&At::ROOT, vec![told], None).map_err(|refusal| refusal.to_string())?;
        Ok(read.expect("there is one").as_ref().clone())
    }

    #[test]
    fn all_of_it_is_read_with_the_defaults_of_envoy() {
        let told = PbHealthCheck {
            interval_jitter: seconds(1),
            interval_jitter_percent: 10,
            ..of_http(HttpHealthCheck::default())
        };
        let check = read(told).expect("valid");
        let probe = HttpProbe {
            path: "/up".into(),
            host: String::new(),
            head_only: false,
            expected: vec![HttpProbe::EXPECTED],
            retriable: Vec::new(),
            http2: false,
        };
        assert_eq!(check.probe, Probe::Http(probe));
        assert_eq!((check.interval, check.unhealthy_interval), (Duration::from_secs(5), Duration::from_secs(5)));
        assert_eq!((check.jitter, check.initial_jitter), (Duration::from_millis(1500), Duration::ZERO));
        assert_eq!((check.unhealthy_threshold, check.healthy_threshold), (4, 2));
        assert_eq!((check.no_traffic_interval, check.reuse, check.keep), (Duration::from_secs(60), true, 1));
        let tcp = read(of_tcp("0aB0")).expect("valid");
        assert_eq!(tcp.probe, Probe::Tcp { send: vec![0x0a, 0xb0], receive: vec![vec![0xff, 0x00], b"b".to_vec()] });
        let mut metadata = None;
        setting::set(&mut metadata, HealthCheck::KEEP, Kind::NumberValue(0.0));
        let read = health(&At::ROOT, vec![of_tcp("00")], metadata.as_ref()).expect("valid").expect("there is one");
        assert_eq!(read.keep, 0);
        assert_eq!(health(&At::ROOT, Vec::new(), None), Ok(None));
    }

    #[test]
    fn what_would_mean_something_else_is_refused_with_the_path() {
        let changed = |change: &dyn Fn(&mut PbHealthCheck)| {
            let mut told = of_http(HttpHealthCheck::default());
            change(&mut told);
            told
        };
        let range = |start, end| HttpHealthCheck {
            expected_statuses: vec![Int64Range { start, end }],
            ..HttpHealthCheck::default()
        };
        for (told, path) in [
            (changed(&|told| told.interval = None), "health_checks[0].interval: is missing"),
            (changed(&|told| told.timeout = seconds(0)), "health_checks[0].timeout: has to be longer than 0"),
            (changed(&|told| told.healthy_threshold = None), "health_checks[0].healthy_threshold: is missing"),
            (
                changed(&|told| told.unhealthy_threshold = Some(UInt32Value { value: 0 })),
                "health_checks[0].unhealthy_threshold: has to be at least 1",
            ),
            (
                changed(&|told| told.alt_port = Some(UInt32Value { value: 1 })),
                "health_checks[0].alt_port: is not supported",
            ),
            (changed(&|told| told.health_checker = None), "health_checks[0].health_checker: is missing"),
            (
                of_http(HttpHealthCheck { codec_client_type: 2, ..HttpHealthCheck::default() }),
                "health_checks[0].http_health_check.codec_client_type: is not supported",
            ),
            (of_http(range(200, 200)), "health_checks[0].http_health_check.expected_statuses[0]: is no range"),
            (of_http(range(99, 200)), "health_checks[0].http_health_check.expected_statuses[0]: is no range"),
            (of_http(range(500, 601)), "health_checks[0].http_health_check.expected_statuses[0]: is no range"),
            (
                message(HealthChecker::HttpHealthCheck(HttpHealthCheck::default())),
                "health_checks[0].http_health_check.path: is missing",
            ),
            (of_tcp("0"), "health_checks[0].tcp_health_check.send.text: is not hexadecimal"),
            (of_tcp("0g"), "health_checks[0].tcp_health_check.send.text: is not hexadecimal"),
            (of_tcp(""), "health_checks[0].tcp_health_check.send: has to be from 1"),
        ] {
            let error = read(told).expect_err(path);
            assert!(error.starts_with(path), "{error}");
        }
        let unejects = Some(pillion_wire::xds::BoolValue { value: true });
        let outlier =
            OutlierDetection { successful_active_health_check_uneject_host: unejects, ..OutlierDetection::default() };
        let error = beside(&At::ROOT, Some(&outlier)).expect_err("not so").to_string();
        assert_eq!(error, "outlier_detection.successful_active_health_check_uneject_host: is not supported");
        assert_eq!(beside(&At::ROOT, Some(&OutlierDetection::default())), Ok(()));
        let two = vec![of_tcp("00"), of_tcp("00")];
        let error = health(&At::ROOT, two, None).expect_err("one at most").to_string();
        assert_eq!(error, "health_checks[1]: is not supported");
    }
}
