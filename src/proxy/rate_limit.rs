//! Rate limits of our own ports: what tells a request apart, its turn, and what a caller is told that has none.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use pillion_wire::rate_limit::{Exempt, Key};
use tokio::time::{Instant, sleep};

use super::client::Client;
use crate::error::ProxyError;
use crate::policy::rate_limit::{Limiter, Place, Verdict};
use crate::snapshot::InboundPort;

/// What is left of a limit (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// When a gRPC client may try again, in milliseconds (gRFC A6).
pub(super) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Longer keys are remembered by their digest: what they cost is bounded.
const LONGEST_KEY: usize = 256;

/// Lets a request through every limit of `port`, after a wait where one says so. The places are to be held until its
/// answer has ended.
///
/// # Errors
/// [`ProxyError::RateLimited`]: those that were asked before have counted it all the same.
///
/// # Cancel safety
/// Dropped while it waits, the request's place stays taken.
pub(super) async fn admit(
    client: &Client,
    port: &InboundPort,
    request: &request::Parts,
) -> Result<Vec<Place>, ProxyError> {
    let (mut wait, mut places) = (Duration::ZERO, Vec::new());
    for limiter in port.limiters.iter() {
        if is_exempt(&limiter.config().exempt, client, request) {
            continue;
        }
        let (verdict, place) = limiter.admit(&key(limiter, client, request), Instant::now());
        places.extend(place);
        match verdict {
            Verdict::Pass(_) => {}
            Verdict::Wait(longer) => wait = wait.max(longer),
            Verdict::Refuse { retry_after } => {
                return Err(ProxyError::RateLimited { name: limiter.config().name.clone(), retry_after });
            }
        }
    }
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok(places)
}

/// Says in the answer which limit it was, and when it is worth trying again.
pub(super) fn tell(headers: &mut HeaderMap, name: &str, retry_after: Duration, is_grpc: bool) {
    let seconds = u64::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    if let Ok(value) = HeaderValue::try_from(format!("\"{name}\";r=0;t={seconds}")) {
        headers.insert(RATE_LIMIT, value);
    }
    if is_grpc {
        let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        headers.insert(PUSHBACK, HeaderValue::from(millis));
    }
}

fn is_exempt(exempt: &Exempt, client: &Client, request: &request::Parts) -> bool {
    exempt.callers.iter().any(|caller| **caller == *client.peer)
        || exempt.networks.iter().any(|network| network.contains(&client.address.ip().to_canonical()))
        || exempt.paths.iter().any(|path| path == request.uri.path())
}

/// What the request is counted under. No part can hold the line break between them.
fn key<'a>(limiter: &Limiter, client: &'a Client, request: &'a request::Parts) -> Cow<'a, str> {
    let mut parts = limiter.config().keys.iter().map(|key| part(key, client, request));
    let first = parts.next().unwrap_or_default();
    let mut all = first;
    for next in parts {
        let all = all.to_mut();
        all.push('\n');
        all.push_str(&next);
    }
    if all.len() <= LONGEST_KEY {
        return all;
    }
    let mut short = String::with_capacity(64);
    for byte in digest(&SHA256, all.as_bytes()).as_ref() {
        // Writing to a string never fails.
        let _infallible = write!(short, "{byte:02x}");
    }
    short.into()
}

fn part<'a>(key: &Key, client: &'a Client, request: &'a request::Parts) -> Cow<'a, str> {
    match key {
        Key::Caller => Arc::as_ref(&client.peer).into(),
        Key::SourceAddress => client.address.ip().to_canonical().to_string().into(),
        Key::Path => request.uri.path().into(),
        Key::Header(name) => {
            request.headers.get(name).map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
        }
    }
}
