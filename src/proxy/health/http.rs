//! A check by an HTTP request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use pillion_wire::health::HttpProbe;

use super::super::attempt::IMMEDIATE_FAIL;
use super::exchange::{Question, ask};
use super::{failed, passed};
use crate::resilience::health::Finding;
use crate::upstream::{Found, Host, Pool};

/// Asks for the path, and judges by the status.
pub(super) async fn check(pool: &Pool, cluster: &str, host: &Host, probe: &HttpProbe, time: Duration) -> Found {
    let question = Question {
        method: if probe.head_only { Method::HEAD } else { Method::GET },
        authority: if probe.host.is_empty() { cluster } else { &probe.host },
        path: &probe.path,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        http2: probe.http2,
    };
    match ask(pool, host, &question, time).await {
        Ok(answer) => judge(probe, answer.status, answer.headers.contains_key(IMMEDIATE_FAIL)),
        Err(found) => found,
    }
}

fn judge(probe: &HttpProbe, status: StatusCode, refuses: bool) -> Found {
    let is_in = |ranges: &[std::ops::Range<u16>]| ranges.iter().any(|range| range.contains(&status.as_u16()));
    let why = format!("{} is answered {}", probe.path, status.as_u16());
    if refuses {
        return Found { finding: Finding::Refused, why: format!("{why}, with {IMMEDIATE_FAIL}"), is_network: false };
    }
    if is_in(&probe.expected) {
        return passed();
    }
    match is_in(&probe.retriable) {
        true => failed(why),
        false => Found { finding: Finding::Refused, ..failed(why) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_count_as_envoy_has_it() {
        let probe = HttpProbe {
            path: "/up".to_owned(),
            host: String::new(),
            head_only: false,
            expected: vec![200..201, 300..400],
            retriable: vec![500..600, 300..302],
            http2: false,
        };
        for (status, refuses, wanted) in [
            (200, false, Finding::Passed),
            (201, false, Finding::Refused),
            (301, false, Finding::Passed),
            (399, false, Finding::Passed),
            (404, false, Finding::Refused),
            (503, false, Finding::Failed),
            (200, true, Finding::Refused),
        ] {
            let found = judge(&probe, StatusCode::from_u16(status).expect("literal"), refuses);
            assert_eq!(found.finding, wanted, "{status}");
            assert!(found.why.is_empty() == (wanted == Finding::Passed), "{found:?}");
        }
    }
}
