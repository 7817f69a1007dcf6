//! What the mesh tells of itself.

mod metrics;
mod metrics_files;
