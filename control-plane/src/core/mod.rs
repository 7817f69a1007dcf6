//! The domain: services, workloads, routes, and the mesh that they make
//! together. Pure: nothing here reads, waits or speaks a protocol.

pub mod address;
pub mod external;
pub mod filter;
pub mod grant;
pub mod mesh;
pub mod origin;
pub mod policy;
pub mod protocol;
mod reach;
pub mod resolve;
pub mod route;
mod said;
pub mod service;
mod table;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
pub mod workload;
