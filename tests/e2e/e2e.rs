//! End-to-end tests: real processes of the `pillion` program on one side, and wherever one exists a client and a server
//! that somebody else wrote on the other.
//!
//! One binary, one module per topic, all on top of `support`. The file is not called `main.rs`, since cargo would then
//! take the folder for a test of the workspace's root package as well.

mod bodies;
mod commands;
mod failover;
mod graceful;
mod grpc;
mod smoke;
mod startup;
mod support;
mod tcp;
