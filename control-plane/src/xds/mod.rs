//! xDS: translating the mesh into resources and serving them.

pub mod dialect;
mod translate;
mod version;
