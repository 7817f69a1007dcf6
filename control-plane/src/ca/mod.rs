//! The certificate authority: who is who in the mesh.
//!
//! [`authority`] holds root and intermediate, made on first start and kept in the
//! state folder. [`csr`] takes a public key out of a request and refuses the rest.
//! [`sign`] puts it into a certificate of ours. [`join_token`] is how a workload
//! without a certificate proves its account. [`serving`] is the control plane's
//! own certificate, [`service`] the gRPC face.

pub mod authority;
pub mod csr;
mod files;
pub mod join_token;
pub mod pem;
pub mod service;
pub mod serving;
pub mod sign;
