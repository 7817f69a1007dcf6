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

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::core::tests::{objects, workload};

    #[test]
    fn nobody_speaks_for_a_workload_of_another_account() {
        let spec = "address: 10.0.0.1, mesh: {port: 15008}, ports: [{name: web, port: 8080}]";
        let (mesh, _) = Mesh::compile(&objects(&workload("web-1", "web", spec)), None);
        let ask =
            |name: &str, account: &str| check(&mesh, &Name::new("shop", name), account).map_err(|status| status.code());
        assert_eq!(ask("web-1", "web"), Ok(true));
        assert_eq!(ask("web-1", "orders"), Err(Code::PermissionDenied));
        assert_eq!(ask("web-2", "orders"), Ok(false), "a stranger");
    }
}
