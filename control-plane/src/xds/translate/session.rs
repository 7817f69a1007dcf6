//! Sessions: the filter `envoy.filters.http.stateful_session` and what it does on a route (gRFC A55, A60).

use pillion_wire::{
    setting::{self, SESSION_ABSOLUTE, SESSION_IDLE},
    xds::{
        Any,
        core::{HealthStatus, HealthStatusSet, Metadata, TypedExtensionConfig},
        hcm::HttpFilter,
        http_session::{StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override},
        http_type::{Cookie, CookieAttribute},
        pack,
        route::FilterConfig,
        session_cookie::CookieBasedSessionState,
        session_header::HeaderBasedSessionState,
        type_url,
        value::Kind,
    },
};

use super::{duration, http_filters};
use crate::{
    core::{
        policy::{Policy, SessionPersistence},
        view::PortView,
    },
    xds::dialect::Dialect,
};

const FILTER: &str = "envoy.filters.http.stateful_session";

/// The filter, which does nothing by itself. gRPC gets it only where a route says something, and may pass it over: it is
/// younger there than others.
pub(super) fn filter(view: Option<&PortView>, dialect: Dialect) -> Option<HttpFilter> {
    if dialect == Dialect::Grpc && !view.is_some_and(is_kept) {
        return None;
    }
    let filter = http_filters::filter(FILTER, pack(type_url::STATEFUL_SESSION, &StatefulSession::default()));
    Some(HttpFilter { is_optional: dialect == Dialect::Grpc, ..filter })
}

/// Does any route to `view` keep sessions in a way that gRPC has?
pub(crate) fn is_kept(view: &PortView) -> bool {
    let routes = view.http.iter().flatten().map(|entry| &entry.policy);
    routes.chain([&view.policy]).any(|policy| policy.session.as_ref().is_some_and(|session| !session.by_header))
}

/// What it does on the route `name`. gRPC has no sessions by header (A55), and would refuse them.
pub(super) fn on_route(policy: &Policy, name: &str, dialect: Dialect) -> Option<(String, Any)> {
    let session = policy.session.as_ref().filter(|session| dialect != Dialect::Grpc || !session.by_header)?;
    let name = session.name_for(name);
    let config = if session.by_header {
        pack(type_url::HEADER_SESSION, &HeaderBasedSessionState { name })
    } else {
        pack(type_url::COOKIE_SESSION, &CookieBasedSessionState { cookie: Some(cookie(session, name)) })
    };
    let kind = if session.by_header { "header" } else { "cookie" };
    let told = StatefulSession {
        session_state: Some(TypedExtensionConfig {
            name: format!("envoy.http.stateful_session.{kind}"),
            typed_config: Some(config),
        }),
        strict: session.strict,
        ..StatefulSession::default()
    };
    let told = StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(told)) };
    let told = pack(type_url::STATEFUL_SESSION_PER_ROUTE, &told);
    // What is optional as a filter has to be so on each route, too (A39).
    let optional = || FilterConfig { config: Some(told.clone()), is_optional: true, disabled: false };
    let told = if dialect == Dialect::Grpc { pack(type_url::FILTER_CONFIG, &optional()) } else { told };
    Some((FILTER.to_owned(), told))
}

/// Clients of the mesh are programs: no path is too wide for them, and none knows what the others may be.
fn cookie(session: &SessionPersistence, name: String) -> Cookie {
    Cookie {
        name,
        ttl: session.absolute.filter(|_| session.permanent).map(duration),
        path: "/".to_owned(),
        attributes: vec![CookieAttribute { name: "SameSite".to_owned(), value: "Lax".to_owned() }],
    }
}

/// What only our sidecars know: how long sessions last, whatever the cookie's lifetime is.
pub(super) fn limit(metadata: &mut Option<Metadata>, policy: &Policy, dialect: Dialect) {
    let Some(session) = policy.session.as_ref().filter(|_| dialect == Dialect::Pillion) else { return };
    for (field, time) in [(SESSION_ABSOLUTE, session.absolute), (SESSION_IDLE, session.idle)] {
        if let Some(time) = time {
            setting::set(metadata, field, Kind::NumberValue(time.as_secs_f64()));
        }
    }
}

/// Who keeps the sessions that it has: endpoints that are well, and those that drain (`override_host_status`).
pub(super) fn keeping() -> HealthStatusSet {
    let statuses = [HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Draining];
    HealthStatusSet { statuses: statuses.into_iter().map(i32::from).collect() }
}
