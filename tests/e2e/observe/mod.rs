//! What an operator sees of the mesh.

mod collector;
mod metrics;
mod metrics_files;
mod trace;
