//! The `pillion` command: what a person types to run, try and check a mesh on one machine.

pub mod metrics;
