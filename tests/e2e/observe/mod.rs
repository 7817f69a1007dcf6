//! What the mesh tells of itself.

mod access_log;
mod explain;
