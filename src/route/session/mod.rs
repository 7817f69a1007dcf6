//! What a client brings along of its session: where it belongs, as a text that it was given.
//!
//! The text is base64 of `address;cluster` (gRFC A60), and of `address;cluster;ends;idle` where sessions end after a time,
//! both in seconds since 1970, or `-`. It is not signed: a client can choose among the hosts that its request could have
//! been given to anyway, and nothing more, for the address is only ever looked up among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue, request};

use super::hash::cookie;
use crate::config::{Carrier, Session};

/// Bytes of the longest text that is looked at.
const LONGEST: usize = 1024;

/// Where a session belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The host.
    pub address: SocketAddr,
    /// Its cluster. `None` (Envoy's older form): any cluster of the route.
    pub cluster: Option<String>,
    /// When it ends, in seconds since 1970.
    pub ends: Option<u64>,
    /// When it ends unless it is used, in seconds since 1970.
    pub idle: Option<u64>,
}

/// What a request says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Nothing.
    Nothing,
    /// Something that we never gave to anybody.
    Malformed,
    /// A session whose time is over.
    Expired,
    /// A session.
    Token(Token),
}

/// The session of one request, until its response tells where it belongs.
#[derive(Clone, Debug)]
pub struct Bound {
    /// How sessions are kept.
    pub rules: Arc<Session>,
    /// Where the request says that it belongs.
    pub token: Option<Token>,
    /// The host that it is for, looked up in the cluster that the request goes to. `None`: any.
    pub pinned: Option<SocketAddr>,
}

/// Does a request to `path` belong to any session at all? Not outside of the cookie's path (RFC 6265, section 5.1.4).
pub fn concerns(session: &Session, path: &str) -> bool {
    let Carrier::Cookie { path: within, .. } = &session.carrier else { return true };
    match path.strip_prefix(within.as_str()) {
        Some(rest) => within.is_empty() || within.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// Reads what a request brings along. `now` gives seconds since 1970 and is asked only where sessions end.
pub fn read(session: &Session, request: &request::Parts, now: impl Fn() -> u64) -> Came {
    let value = match &session.carrier {
        Carrier::Cookie { name, .. } => cookie(request, name),
        Carrier::Header(name) => request.headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty()),
    };
    let Some(value) = value else { return Came::Nothing };
    let Some(mut token) = decode(value) else { return Came::Malformed };
    if session.absolute.is_none() && session.idle.is_none() {
        return Came::Token(token);
    }
    let now = now();
    // Whoever writes a later time than we would is not believed; whoever writes none has none left.
    token.ends = session.absolute.map(|most| token.ends.map_or(0, |ends| ends.min(after(now, most))));
    token.idle = session.idle.map(|most| token.idle.map_or(0, |idle| idle.min(after(now, most))));
    if token.ends.is_some_and(|ends| ends <= now) || token.idle.is_some_and(|idle| idle <= now) {
        return Came::Expired;
    }
    Came::Token(token)
}

/// What the response gives to the client, which goes on with a session at `address`. `now` as for [`read`].
pub fn give(
    bound: &Bound,
    address: SocketAddr,
    cluster: &str,
    now: impl Fn() -> u64,
) -> Option<(HeaderName, HeaderValue)> {
    let session = &*bound.rules;
    let kept = bound.keeps(address, cluster);
    if kept && session.idle.is_none() {
        return None;
    }
    let now = if session.absolute.is_some() || session.idle.is_some() { now() } else { 0 };
    let earlier = bound.token.as_ref().filter(|_| kept).and_then(|token| token.ends);
    let token = Token {
        address,
        cluster: Some(cluster.to_owned()),
        ends: session.absolute.map(|most| earlier.unwrap_or_else(|| after(now, most))),
        idle: session.idle.map(|most| after(now, most)),
    };
    let text = encode(&token);
    match &session.carrier {
        Carrier::Header(name) => Some((name.clone(), HeaderValue::try_from(text).ok()?)),
        Carrier::Cookie { name, path, lasts, attributes } => {
            let age = token.ends.filter(|_| *lasts).map(|ends| format!("; Max-Age={}", ends.saturating_sub(now)));
            let path = if path.is_empty() { String::new() } else { format!("; Path={path}") };
            let cookie = format!("{name}={text}{}{path}; HttpOnly{attributes}", age.unwrap_or_default());
            Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
        }
    }
}

impl Bound {
    /// Does the session stay, with its host in `cluster`?
    pub fn keeps(&self, address: SocketAddr, cluster: &str) -> bool {
        let same =
            |token: &Token| token.address == address && token.cluster.as_deref().is_none_or(|own| own == cluster);
        self.token.as_ref().is_some_and(same)
    }
}

fn after(now: u64, time: Duration) -> u64 {
    now.saturating_add(time.as_secs())
}

fn encode(token: &Token) -> String {
    let Token { address, cluster, ends, idle } = token;
    let mut text = format!("{address};{}", cluster.as_deref().unwrap_or_default());
    if ends.is_some() || idle.is_some() {
        let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        text = format!("{text};{};{}", time(*ends), time(*idle));
    }
    STANDARD.encode(text)
}

/// `None`: it is no such text.
fn decode(value: &[u8]) -> Option<Token> {
    if value.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let mut parts = text.split(';');
    let address = parts.next()?.parse().ok()?;
    let cluster = parts.next().filter(|cluster| !cluster.is_empty()).map(str::to_owned);
    let time = |part: Option<&str>| match part {
        None | Some("-") => Some(None),
        Some(part) => part.parse().ok().map(Some),
    };
    let token = Token { address, cluster, ends: time(parts.next())?, idle: time(parts.next())? };
    parts.next().is_none().then_some(token)
}

#[cfg(test)]
mod tests;
