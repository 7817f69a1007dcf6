//! How the requests of a session stay on one host (`envoy.filters.http.stateful_session`, gRFC A55 and A60).

use std::time::Duration;

use http::HeaderName;

/// `StatefulSession` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `session_state`: where clients bring along what they were given.
    pub carrier: Carrier,
    /// `strict`: a request whose host is gone fails, and is not given to another one. False by default.
    pub strict: bool,
    /// How long a session lasts, from the first answer: `cookie.ttl`, or `sessionAbsoluteSeconds` of the route. Whole
    /// seconds. `None`: for ever.
    pub absolute: Option<Duration>,
    /// How long it lasts without a request: `sessionIdleSeconds` of the route. Whole seconds. `None`: for ever.
    pub idle: Option<Duration>,
}

/// What carries a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `CookieBasedSessionState`.
    Cookie {
        /// Its name, a token.
        name: String,
        /// Its `Path`; empty: none. Only requests within it are concerned.
        path: String,
        /// Has it a `Max-Age` (`ttl`), or does it end with the client's own session?
        lasts: bool,
        /// Its further attributes as they are written, such as `; SameSite=Lax`.
        attributes: String,
    },
    /// `HeaderBasedSessionState`: a header of this name, in responses and in requests.
    Header(HeaderName),
}
