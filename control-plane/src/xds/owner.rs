//! Whose a workload is.

use tonic::Status;

use crate::core::{mesh::Mesh, service::Name};

/// Nobody speaks for a workload of another account than their own, which is proven. Do documents name the workload?
///
/// # Errors
/// `PERMISSION_DENIED` when they say that it has another account.
pub(crate) fn check(mesh: &Mesh, name: &Name, service_account: &str) -> Result<bool, Status> {
    match mesh.workload(name) {
        Some(view) if view.service_account != service_account => {
            Err(Status::permission_denied(format!("{name} has another service account than {service_account}")))
        }
        found => Ok(found.is_some()),
    }
}
