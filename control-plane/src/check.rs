//! `check`: everything that can be said about a directory without serving it.

use std::{fmt, path::Path, sync::Arc};

use pillion_wire::spiffe::TrustDomain;
use serde::Serialize;

use crate::{
    core::workload::Workload,
    document::Object,
    index::compile,
    source::{
        Problem, Severity,
        file::watch::{Directory, DirectoryError},
    },
    xds::catalog::Catalog,
};

/// What a directory holds, and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Objects that are in order.
    pub accepted: usize,
    /// Why objects are refused.
    pub errors: Vec<Problem>,
    /// What is odd but accepted.
    pub warnings: Vec<Problem>,
    /// The Workloads among the accepted objects.
    #[serde(skip)]
    pub workloads: Vec<Arc<Workload>>,
}

impl Report {
    /// Whether nothing is refused.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.errors.iter().chain(&self.warnings) {
            writeln!(formatter, "{problem}")?;
        }
        write!(
            formatter,
            "{} objects accepted, {} errors, {} warnings",
            self.accepted,
            self.errors.len(),
            self.warnings.len()
        )
    }
}

/// What the control plane would serve of the configuration in `dir`, and what is wrong with it.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn catalog(dir: &Path, trust_domain: TrustDomain) -> Result<(Catalog, Vec<Problem>), DirectoryError> {
    let (_, update) = Directory::open(dir)?;
    let (mesh, problems) = compile(&update, None);
    Ok((Catalog::new(mesh, trust_domain, None), problems))
}

/// Checks the configuration in `dir` as the control plane would read it.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn check(dir: &Path) -> Result<Report, DirectoryError> {
    let (_, update) = Directory::open(dir)?;
    let (_, problems) = compile(&update, None);
    let (errors, warnings) = problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    let workloads = update
        .objects
        .values()
        .filter_map(|accepted| match &accepted.object {
            Object::Workload(workload) => Some(Arc::clone(workload)),
            _ => None,
        })
        .collect();
    Ok(Report { accepted: update.objects.len(), errors, warnings, workloads })
}
