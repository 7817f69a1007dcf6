//! Faults on purpose.

use std::time::Duration;

use crate::core::route::NamedMatch;

/// `spec.faults`: what goes wrong on purpose with some of the requests (Envoy's filter `envoy.filters.http.fault`, gRFC
/// A33). Delay and abort are drawn each by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// How long requests are held back before they go on.
    pub delay: Option<(Duration, Share)>,
    /// What they are answered with instead of going on.
    pub abort: Option<(Abort, Share)>,
    /// Only requests that have all of these.
    pub headers: Vec<NamedMatch>,
    /// Requests that one proxy holds back at a time, at most; further ones pass unharmed.
    pub max_active: u32,
}

/// Of a million requests, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share(pub u32);

/// An answer in place of the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A `grpc-status`.
    Grpc(u32),
}
