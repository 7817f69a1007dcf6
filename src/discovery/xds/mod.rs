//! The `xds` source: incremental ADS from a control plane.

pub(crate) mod client;
pub(crate) mod delta;
mod kept;
mod load;
pub mod translate;

mod source;

#[cfg(test)]
pub(crate) mod test_ads;

pub(super) use source::Xds;
