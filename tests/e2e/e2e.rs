//! End-to-end tests: real processes of the `pillion` program on one side, and wherever one exists a client and a server
//! that somebody else wrote on the other.
//!
//! One binary, one module per topic, all on top of `support`. The file is not called `main.rs`, since cargo would then
//! take the folder for a test of the workspace's root package as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "nothing here but tests and what they stand on: a failure must stop the test with its cause"
)]

mod bodies;
mod commands;
mod control;
mod failover;
mod graceful;
mod grpc;
mod http;
mod interception;
mod observe;
mod resilience;
mod run_command;
mod security;
mod smoke;
mod startup;
mod support;
mod tcp;
mod transparent;
