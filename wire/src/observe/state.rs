//! How a sidecar stands: what it says of itself (`/state` of its admin port), and what the control plane adds.

use serde::{Deserialize, Serialize};

/// What a sidecar says of itself. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Its namespace.
    pub namespace: String,
    /// Its workload.
    pub workload: String,
    /// Version of its program.
    pub version: String,
    /// When it was started.
    pub started: u64,
    /// Serves, and takes new requests.
    pub ready: bool,
    /// Finishes what it has.
    pub draining: bool,
    /// What is missing, or worth knowing; empty mostly.
    pub why: String,
    /// Its certificate, once it has one.
    pub certificate: Option<Certificate>,
    /// Configuration that it has refused, of each resource the last attempt.
    pub rejected: Vec<Rejected>,
    /// Clusters in use.
    pub clusters: usize,
    /// Hosts of them.
    pub endpoints: usize,
    /// Connections and other tasks that a drain waits for.
    pub connections: usize,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Threads that carry traffic.
    pub workers: usize,
    /// Its admin port.
    pub admin: String,
}

/// A certificate in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// SPIFFE id.
    pub id: String,
    /// Beginning of its validity.
    pub not_before: u64,
    /// End of its validity.
    pub not_after: u64,
}

/// Configuration that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rejected {
    /// `listener`, `route`, `cluster`, `endpoints`.
    pub kind: String,
    /// Name of the resource.
    pub name: String,
    /// The version that was refused.
    pub version: String,
    /// What is wrong with it.
    pub detail: String,
    /// When it was refused last.
    pub at: u64,
}

/// All that are connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sidecars {
    /// In the order of their names.
    pub sidecars: Vec<Summary>,
}

/// One client of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// `<namespace>/<workload>` of a sidecar, the node's id of others.
    pub name: String,
    /// `pillion`, `grpc`, `envoy`.
    pub dialect: String,
    /// Its proven identity.
    pub identity: String,
    /// Version of its program.
    pub version: String,
    /// Where it connects from.
    pub address: String,
    /// Connected since; 0: a workload whose sidecar is not connected.
    pub connected: u64,
    /// Its configuration against the newest.
    pub configuration: Configuration,
    /// What it says of itself. `None`: it does not answer, or is none of ours.
    pub state: Option<State>,
    /// Why it does not answer.
    pub silent: String,
}

/// Configuration of a client against the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// `in sync`, `behind` or `rejected`.
    pub state: String,
    /// Stands for all that it has accepted.
    pub version: String,
    /// Stands for the newest of all that it asks for: equal when it is in sync.
    pub newest: String,
    /// Resources that it asks for.
    pub resources: usize,
    /// Resources of which it has not accepted the newest version.
    pub behind: usize,
    /// Since when, in seconds since 1970; 0 when it is not behind.
    pub since: u64,
    /// Resources that it refused.
    pub rejected: Vec<Rejected>,
}
