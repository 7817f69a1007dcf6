//! The `xds` source: incremental ADS from a control plane.

pub(crate) mod client;
pub(crate) mod delta;
mod kept;
mod load;
pub mod translate;

mod source;

#[cfg(test)]
pub(crate) mod test_ads;

pub use client::Link;
pub(super) use source::Xds;

use super::Kind;

/// The type URL of a kind of resources.
pub fn type_url(kind: Kind) -> &'static str {
    delta::url_of(kind)
}
