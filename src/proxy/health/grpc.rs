//! A check by gRPC's health checking protocol (`grpc.health.v1`, gRPC's `doc/health-checking.md`).

use std::time::Duration;

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message;

use super::exchange::{Answer, Question, ask};
use super::{failed, passed};
use crate::http::{frame, unframe};
use crate::resilience::deadline::{GRPC_TIMEOUT, format_grpc};
use crate::resilience::health::Finding;
use crate::upstream::{Found, Host, Pool};

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus` by number.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Calls `Check`, and judges by the serving status.
pub(super) async fn check(
    pool: &Pool,
    cluster: &str,
    host: &Host,
    service: &str,
    authority: &str,
    time: Duration,
) -> Found {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(GRPC_TIMEOUT, format_grpc(time));
    let question = Question {
        method: Method::POST,
        authority: if authority.is_empty() { cluster } else { authority },
        path: "/grpc.health.v1.Health/Check",
        headers,
        body: frame(&HealthCheckRequest { service: service.to_owned() }),
        http2: true,
    };
    match ask(pool, host, &question, time).await {
        Ok(answer) => judge(&answer),
        Err(found) => found,
    }
}

fn judge(answer: &Answer) -> Found {
    if answer.status != StatusCode::OK {
        return failed(format!("the call is answered {}", answer.status.as_u16()));
    }
    let of =
        |headers: &HeaderMap| headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse::<u8>().ok());
    match of(&answer.trailers).or_else(|| of(&answer.headers)) {
        Some(0) => {}
        Some(12) => return failed("it has no health service (grpc-status 12, UNIMPLEMENTED)".to_owned()),
        Some(code) => return failed(format!("the call ends with grpc-status {code}")),
        None => return failed("the call ends without a grpc-status".to_owned()),
    }
    let Some(response) = unframe::<HealthCheckResponse>(&answer.body) else {
        return failed("the answer is no HealthCheckResponse".to_owned());
    };
    let name = usize::try_from(response.status).ok().and_then(|status| STATUSES.get(status)).unwrap_or(&"no status");
    let why = format!("it says {name}");
    match response.status {
        SERVING => passed(),
        NOT_SERVING => Found { finding: Finding::Refused, ..failed(why) },
        _ => failed(why),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn answer(status: u16, grpc: Option<&'static str>, body: &[u8]) -> Answer {
        let field = |value| (HeaderName::from_static("grpc-status"), HeaderValue::from_static(value));
        Answer {
            status: StatusCode::from_u16(status).expect("literal"),
            headers: HeaderMap::new(),
            body: body.to_vec(),
            trailers: grpc.map(field).into_iter().collect(),
        }
    }

    #[test]
    fn only_serving_is_serving() {
        let serving = frame(&HealthCheckResponse { status: SERVING });
        let not_serving = frame(&HealthCheckResponse { status: NOT_SERVING });
        for (answer, wanted, why) in [
            (answer(200, Some("0"), &serving), Finding::Passed, ""),
            (answer(200, Some("0"), &not_serving), Finding::Refused, "it says NOT_SERVING"),
            (answer(200, Some("0"), &frame(&HealthCheckResponse { status: 3 })), Finding::Failed, "SERVICE_UNKNOWN"),
            (answer(200, Some("0"), &frame(&HealthCheckResponse { status: -7 })), Finding::Failed, "no status"),
            (answer(200, Some("0"), b""), Finding::Failed, "no HealthCheckResponse"),
            (answer(200, Some("0"), &[1, 0, 0, 0, 2, 8, 1]), Finding::Failed, "no HealthCheckResponse"),
            (answer(200, Some("0"), &[0, 0, 0, 0, 1, 8]), Finding::Failed, "no HealthCheckResponse"),
            (answer(200, Some("12"), b""), Finding::Failed, "UNIMPLEMENTED"),
            (answer(200, None, &serving), Finding::Failed, "without a grpc-status"),
            (answer(503, Some("0"), &serving), Finding::Failed, "503"),
        ] {
            let found = judge(&answer);
            assert_eq!(found.finding, wanted, "{found:?}");
            assert!(found.why.contains(why), "{found:?}");
        }
    }
}
