//! What an answer says of the host that gave it, for balancers that listen.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};

use crate::error::ProxyError;

/// gRPC's status, as a header of an answer without a message.
const GRPC_STATUS: &str = "grpc-status";
/// DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC_FAILURES: [&[u8]; 5] = [b"4", b"8", b"13", b"14", b"15"];

/// Does it tell of a host that is not well: that it fails (5xx), or has too much to do (429)? gRPC says so in a status,
/// which is in the head when there is no other answer. With it comes how long the host asks to be left alone, in seconds
/// (`Retry-After`), else nothing.
pub(super) fn failure<B>(result: Result<&Response<B>, &ProxyError>) -> Option<Duration> {
    let response = match result {
        Ok(response) => response,
        Err(ProxyError::ClientGone) => return None,
        Err(_) => return Some(Duration::ZERO),
    };
    let (status, headers) = (response.status(), response.headers());
    let has_failed = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || is_grpc_failure(headers);
    let asked = || headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
    has_failed.then(|| asked().unwrap_or_default())
}

/// Does this head, or do these trailers, say that a gRPC call failed for its server's sake?
pub(super) fn is_grpc_failure(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|code| GRPC_FAILURES.contains(&code.as_bytes()))
}

/// gRPC's statuses that load reports count as errors of the endpoint (LRS, `UpstreamEndpointStats.total_error_requests`):
/// `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
const GRPC_ERRORS: [&[u8]; 6] = [b"2", b"4", b"12", b"13", b"14", b"15"];

/// Does this head, or do these trailers, say that a gRPC call is to be reported as an error?
pub(super) fn is_grpc_error(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|code| GRPC_ERRORS.contains(&code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_answers() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (status, header, expected) in [
            (200, ("x", ""), None),
            (200, ("retry-after", "5"), None),
            (404, ("x", ""), None),
            (429, ("x", ""), seconds(0)),
            (503, ("retry-after", "7"), seconds(7)),
            (503, ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), seconds(0)),
            (500, ("retry-after", "-1"), seconds(0)),
            (200, (GRPC_STATUS, "0"), None),
            (200, (GRPC_STATUS, "5"), None),
            (200, (GRPC_STATUS, "14"), seconds(0)),
        ] {
            let response = Response::builder().status(status).header(header.0, header.1).body(()).expect("valid");
            assert_eq!(failure(Ok(&response)), expected, "{status} {header:?}");
        }
        assert_eq!(failure::<()>(Err(&ProxyError::ClientGone)), None);
        assert_eq!(failure::<()>(Err(&ProxyError::NoIdentity)), seconds(0));
    }
}
