//! The Pillion control plane.

pub mod core;
pub mod document;
pub mod xds;
