//! Where something comes from, for our own sidecars: metadata that others would only have to carry.

use pillion_wire::{
    extension,
    origin::{ORIGIN_METADATA, Origins},
    xds::core::Metadata,
};

use crate::{core::origin::Unhashed, xds::dialect::Dialect};

/// Adds `origins` to `metadata`.
pub(super) fn note(metadata: &mut Option<Metadata>, origins: &Unhashed<Origins>, dialect: Dialect) {
    if dialect == Dialect::Pillion && origins.0 != Origins::default() {
        extension::put(metadata.get_or_insert_default(), ORIGIN_METADATA, &origins.0);
    }
}
