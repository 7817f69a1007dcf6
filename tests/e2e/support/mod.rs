//! What end-to-end tests stand on: a mesh of real processes, other people's programs, and waiting with deadlines.
//!
//! ```ignore
//! let mesh = Mesh::start();
//! let app = python_files(&mesh);
//! mesh.service("orders", &[("http", 80, "http")]);
//! let orders = mesh.workload(Workload::new("orders").port("http", app.address));
//! let client = mesh.workload(Workload::new("client"));
//! let response = curl(&[&format!("http://{}/", client.outbound()), "-H", "Host: orders.shop"]);
//! assert_eq!(response.status, 200);
//! ```
//!
//! No fixed port and no fixed sleep anywhere: ports are whichever are free on a loopback address that belongs to this
//! mesh alone, and [`eventually`] waits for what is to become true. Every process dies when its handle is dropped; when
//! the test fails, its log is printed.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "test support: each topic uses a part of it")]

mod mesh;
mod netns;
mod peer;
mod pod;
mod process;
mod raw;
mod recorder;
mod sidecar;
mod tools;
mod wait;
mod workload;

pub use mesh::Mesh;
pub use netns::{APPLICATION, Host, Network, SIDECAR, Stack, sweep};
pub use peer::{connect, read_http_head, read_to_end, tcp_server, tunnel};
pub use pod::{MESH_PORT, Pod};
pub use process::{Process, in_workspace, pillion};
pub use raw::{exchange, talk};
pub use recorder::Recorder;
pub use sidecar::Sidecar;
pub use tools::{App, Curl, curl, curl_of, nginx, output, python, python_app, python_files, python_json, run, tool};
pub use wait::{eventually, until};
pub use workload::Workload;
