//! Sessions: the filter `envoy.filters.http.stateful_session`, and for how long they last.

use std::time::Duration;

use pillion_wire::setting::{self, SESSION_ABSOLUTE, SESSION_IDLE};
use pillion_wire::xds::core::{HealthStatus, HealthStatusSet, Metadata};
use pillion_wire::xds::http_session::{StatefulSession, StatefulSessionPerRoute, stateful_session_per_route};
use pillion_wire::xds::http_type::Cookie;
use pillion_wire::xds::session_cookie::CookieBasedSessionState;
use pillion_wire::xds::session_header::HeaderBasedSessionState;
use pillion_wire::xds::type_url;
use pillion_wire::xds::value::Kind;

use super::at::{At, Reason, Refusal, duration, pass_over, unpack};
use super::hash::{is_cookie_text, is_token};
use crate::config::{Carrier, Override, Session};

/// The longest time that a session may last, in seconds: 1,000 years.
const LONGEST: f64 = 31_557_600_000.0;

/// `StatefulSession`. `None`: it says nothing, so that routes may.
pub(super) fn session(at: &At<'_>, told: StatefulSession) -> Result<Option<Session>, Refusal> {
    pass_over!(at, told; stat_prefix);
    if !matches!(told.status_on_strict_destination_not_found, 0 | 503) {
        return Err(at.field("status_on_strict_destination_not_found").refuse(Reason::Unsupported));
    }
    let Some(state) = told.session_state else { return Ok(None) };
    let at = &at.field("session_state");
    let config = at.field("typed_config").required(state.typed_config)?;
    let at = &at.field("typed_config");
    let (carrier, absolute) = match config.type_url.as_str() {
        type_url::COOKIE_SESSION => {
            let state: CookieBasedSessionState = unpack(at, type_url::COOKIE_SESSION, &config)?;
            let at = &at.field("cookie");
            cookie(at, at.required(state.cookie)?)?
        }
        type_url::HEADER_SESSION => {
            let state: HeaderBasedSessionState = unpack(at, type_url::HEADER_SESSION, &config)?;
            let name = state.name.parse().map_err(|_cause| at.field("name").invalid("is no field name"))?;
            (Carrier::Header(name), None)
        }
        _ => return Err(at.refuse(Reason::Unsupported)),
    };
    Ok(Some(Session { carrier, strict: told.strict, absolute, idle: None }))
}

fn cookie(at: &At<'_>, cookie: Cookie) -> Result<(Carrier, Option<Duration>), Refusal> {
    if !is_token(&cookie.name) {
        return Err(at.field("name").invalid("is no cookie name"));
    }
    if !is_cookie_text(&cookie.path) {
        return Err(at.field("path").invalid("is no cookie path"));
    }
    let ttl = cookie.ttl.map(|ttl| duration(&at.field("ttl"), ttl)).transpose()?.filter(|ttl| !ttl.is_zero());
    // What is shorter than a second would never come back.
    let ttl = ttl.map(|ttl| Duration::from_secs(ttl.as_secs().max(1)));
    let places = &at.field("attributes");
    let mut attributes = String::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        if !is_token(&attribute.name) || !is_cookie_text(&attribute.value) {
            return Err(places.index(index).invalid("is no attribute of a cookie"));
        }
        attributes.push_str("; ");
        attributes.push_str(&attribute.name);
        if !attribute.value.is_empty() {
            attributes.push('=');
            attributes.push_str(&attribute.value);
        }
    }
    Ok((Carrier::Cookie { name: cookie.name, path: cookie.path, lasts: ttl.is_some(), attributes }, ttl))
}

/// `StatefulSessionPerRoute`.
pub(super) fn on_route(at: &At<'_>, told: StatefulSessionPerRoute) -> Result<Override, Refusal> {
    use stateful_session_per_route::Override as Told;
    match at.field("override").required(told.r#override)? {
        Told::Disabled(true) => Ok(Override::Disabled),
        Told::Disabled(false) => Err(at.field("disabled").invalid("has to be true")),
        Told::StatefulSession(told) => {
            Ok(session(&at.field("stateful_session"), told)?.map_or(Override::Disabled, Override::Session))
        }
    }
}

/// How long sessions of a route last, beyond what the filter can say.
pub(super) fn limit(
    at: &At<'_>,
    metadata: Option<&Metadata>,
    overrides: &mut [(String, Override)],
) -> Result<(), Refusal> {
    let time = |field: &'static str| match setting::get(metadata, field) {
        None => Ok(None),
        Some(Kind::NumberValue(seconds)) if (1.0..=LONGEST).contains(seconds) => {
            Ok(Some(Duration::from_secs(*seconds as u64)))
        }
        Some(_) => Err(at.field(setting::KEY).field(field).invalid("is no number of seconds from 1")),
    };
    let (absolute, idle) = (time(SESSION_ABSOLUTE)?, time(SESSION_IDLE)?);
    for (_, said) in overrides {
        if let Override::Session(session) = said {
            session.absolute = absolute.or(session.absolute);
            session.idle = idle;
        }
    }
    Ok(())
}

/// `override_host_status`: do hosts that drain keep their sessions? Those that are well always do, others never.
pub(super) fn keeps_draining(at: &At<'_>, told: Option<&HealthStatusSet>) -> Result<bool, Refusal> {
    let Some(told) = told else { return Ok(false) };
    let has = |status: HealthStatus| told.statuses.contains(&status.into());
    let is_known = has(HealthStatus::Unknown)
        && has(HealthStatus::Healthy)
        && !has(HealthStatus::Unhealthy)
        && !has(HealthStatus::Timeout);
    if !is_known {
        return Err(at.refuse(Reason::Unsupported));
    }
    Ok(has(HealthStatus::Draining))
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::core::TypedExtensionConfig;
    use pillion_wire::xds::http_type::CookieAttribute;
    use pillion_wire::xds::{self, pack};

    use super::*;

    fn by_cookie(cookie: Cookie) -> StatefulSession {
        state(pack(type_url::COOKIE_SESSION, &CookieBasedSessionState { cookie: Some(cookie) }))
    }

    fn state(config: xds::Any) -> StatefulSession {
        let session_state = Some(TypedExtensionConfig { name: "state".into(), typed_config: Some(config) });
        StatefulSession { session_state, ..StatefulSession::default() }
    }

    fn named(name: &str) -> Cookie {
        Cookie { name: name.into(), ..Cookie::default() }
    }

    fn read(told: StatefulSession) -> Result<Option<Session>, String> {
        session(&At::ROOT, told).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn both_carriers_are_read() {
        assert_eq!(read(StatefulSession::default()), Ok(None));
        let header = pack(type_url::HEADER_SESSION, &HeaderBasedSessionState { name: "X-S".into() });
        let header = read(StatefulSession { strict: true, ..state(header) }).expect("valid").expect("a session");
        assert_eq!((header.carrier, header.strict), (Carrier::Header(http::HeaderName::from_static("x-s")), true));
        let attributes = [("SameSite", "Lax"), ("Partitioned", "")]
            .map(|(name, value)| CookieAttribute { name: name.into(), value: value.into() });
        let ttl = Some(xds::Duration { seconds: 60, nanos: 0 });
        let cookie = Cookie { ttl, path: "/a".into(), attributes: attributes.into(), ..named("s") };
        let told = read(by_cookie(cookie)).expect("valid").expect("a session");
        let attributes = "; SameSite=Lax; Partitioned".into();
        assert_eq!(told.carrier, Carrier::Cookie { name: "s".into(), path: "/a".into(), lasts: true, attributes });
        assert_eq!((told.strict, told.absolute, told.idle), (false, Some(Duration::from_secs(60)), None));
    }

    #[test]
    fn what_makes_no_sense_or_is_not_supported_is_refused_with_the_path() {
        let evil = CookieAttribute { name: "SameSite".into(), value: "a; Domain=b".into() };
        for (told, expected) in [
            (by_cookie(named("a b")), "session_state.typed_config.cookie.name: is no cookie name"),
            (
                by_cookie(Cookie { path: "/;".into(), ..named("a") }),
                "session_state.typed_config.cookie.path: is no cookie path",
            ),
            (
                by_cookie(Cookie { attributes: vec![evil], ..named("a") }),
                "session_state.typed_config.cookie.attributes[0]: is no attribute of a cookie",
            ),
            (state(pack(type_url::CORS, &Cookie::default())), "session_state.typed_config: is not supported"),
            (
                StatefulSession { status_on_strict_destination_not_found: 404, ..by_cookie(named("a")) },
                "status_on_strict_destination_not_found: is not supported",
            ),
        ] {
            assert_eq!(read(told), Err(expected.to_owned()));
        }
    }

    #[test]
    fn times_of_a_route_go_to_its_session() {
        let told = read(by_cookie(named("s"))).expect("valid").expect("a session");
        let mut overrides = vec![("f".to_owned(), Override::Session(told.clone()))];
        let mut metadata = None;
        setting::set(&mut metadata, SESSION_IDLE, Kind::NumberValue(30.0));
        limit(&At::ROOT, metadata.as_ref(), &mut overrides).expect("valid");
        let idle = Some(Duration::from_secs(30));
        assert_eq!(overrides, [("f".to_owned(), Override::Session(Session { idle, ..told }))]);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            setting::set(&mut metadata, SESSION_IDLE, Kind::NumberValue(wrong));
            assert!(limit(&At::ROOT, metadata.as_ref(), &mut overrides).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_keeps_sessions_is_read() {
        use HealthStatus::{Degraded, Draining, Healthy, Unhealthy, Unknown};
        let read = |statuses: &[HealthStatus]| {
            let statuses = statuses.iter().map(|status| (*status).into()).collect();
            keeps_draining(&At::ROOT, Some(&HealthStatusSet { statuses })).ok()
        };
        assert_eq!(read(&[Unknown, Healthy, Draining]), Some(true));
        assert_eq!(read(&[Unknown, Healthy, Degraded]), Some(false));
        assert_eq!(read(&[Unknown, Healthy, Unhealthy]), None);
        assert_eq!(read(&[]), None);
        assert_eq!(keeps_draining(&At::ROOT, None), Ok(false));
    }
}
