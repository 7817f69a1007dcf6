//! `sessionPersistence` of a rule (GEP-1619); policies have the same fields and one more.

use std::time::Duration;

use super::super::{Issues, duration::Written, gateway::RuleSession, path::FieldPath};
use crate::core::policy::SessionPersistence;

/// What Gateway API allows.
const LONGEST_NAME: usize = 128;

/// Headers that mean something else to whoever reads them.
const TAKEN: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "keep-alive",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(in crate::document) fn read(raw: RuleSession, path: &FieldPath, issues: &mut Issues) -> SessionPersistence {
    let by_header = match raw.kind.as_deref() {
        None | Some("Cookie") => false,
        Some("Header") => true,
        Some(other) => {
            issues.error(path.key("type"), format!("`{other}` is neither Cookie nor Header"));
            false
        }
    };
    if let Some(name) = &raw.session_name {
        check_name(name, by_header, &path.key("sessionName"), issues);
    }
    let absolute = seconds(raw.absolute_timeout, &path.key("absoluteTimeout"), issues);
    let idle = seconds(raw.idle_timeout, &path.key("idleTimeout"), issues);
    if idle.zip(absolute).is_some_and(|(idle, absolute)| idle > absolute) {
        issues.error(path.key("idleTimeout"), "is longer than `absoluteTimeout`");
    }
    let cookie = path.key("cookieConfig");
    if by_header && raw.cookie_config.is_some() {
        issues.error(cookie.clone(), "belongs to type Cookie");
    }
    let permanent = match raw.cookie_config.as_ref().and_then(|config| config.lifetime_type.as_deref()) {
        None | Some("Session") => false,
        Some("Permanent") => true,
        Some(other) => {
            issues.error(cookie.key("lifetimeType"), format!("`{other}` is neither Session nor Permanent"));
            false
        }
    };
    if permanent && absolute.is_none() {
        issues.error(path.key("absoluteTimeout"), "is needed where `cookieConfig.lifetimeType` is Permanent");
    }
    SessionPersistence { name: raw.session_name, by_header, permanent, absolute, idle, strict: false }
}

fn check_name(name: &str, by_header: bool, path: &FieldPath, issues: &mut Issues) {
    let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if name.is_empty() || name.len() > LONGEST_NAME || !is_token {
        issues.error(
            path.clone(),
            format!("`{name}` is no name of a cookie or header of at most {LONGEST_NAME} characters"),
        );
    } else if by_header && TAKEN.contains(&name.to_ascii_lowercase().as_str()) {
        issues.error(path.clone(), format!("the header `{name}` has another meaning"));
    }
}

/// Cookies, and what we write into them, count in seconds.
fn seconds(written: Option<Written>, path: &FieldPath, issues: &mut Issues) -> Option<Duration> {
    let time = written?.0;
    if time.is_zero() || time.subsec_nanos() != 0 {
        issues.error(path.clone(), "is a whole number of seconds, 1s at least");
    }
    Some(time)
}
