//! From accepted objects to a published catalog.
//!
//! Each update is compiled as a whole; what came out equal to before keeps its
//! identity, so streams find only what really changed. Runs where the source
//! runs, never on the threads that serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use pillion_wire::spiffe::TrustDomain;
use tokio::sync::watch;
use tracing::{info, info_span, warn};

use crate::{
    core::{
        mesh::{Finding, Mesh, Objects, Subject},
        origin::Place,
    },
    document::{Kind, Object, ObjectId, path::FieldPath},
    metrics::Metrics,
    source::{Accepted, Problem, Severity, Update},
    xds::catalog::Catalog,
};

/// Compiles updates and publishes catalogs.
#[derive(Debug)]
pub struct Index {
    trust_domain: TrustDomain,
    catalogs: watch::Sender<Arc<Catalog>>,
    status: Arc<Mutex<Status>>,
    metrics: Arc<Metrics>,
}

/// What is in force and what is not, for the admin page.
#[derive(Clone, Debug, Default)]
pub struct Status {
    objects: Arc<BTreeMap<ObjectId, Accepted>>,
    /// Those of each Service, its own or automatic.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    problems: Vec<Problem>,
}

impl Status {
    /// All of it as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let accepted: Vec<serde_json::Value> = self
            .objects
            .iter()
            .map(|(id, accepted)| {
                serde_json::json!({
                    "object": id.to_string(),
                    "file": accepted.file.display().to_string(),
                    "line": accepted.document.line,
                })
            })
            .collect();
        serde_json::json!({ "accepted": accepted, "addresses": self.addresses, "problems": self.problems })
    }
}

impl Index {
    /// Publishes an empty catalog until the first update.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, metrics: Arc<Metrics>) -> Self {
        let empty = Arc::new(Catalog::empty(trust_domain.clone()));
        Self { trust_domain, catalogs: watch::Sender::new(empty), status: Arc::default(), metrics }
    }

    /// The catalogs to come.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalogs.subscribe()
    }

    /// What the admin page shows.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Puts an update in force.
    pub fn apply(&self, update: &Update) {
        let _in_span = info_span!("configuration", objects = update.objects.len()).entered();
        let previous = Arc::clone(&self.catalogs.borrow());
        let (mesh, problems) = compile(update, Some(previous.mesh()));
        let addresses = mesh.services().map(|(name, addresses)| (name.to_string(), addresses.to_vec())).collect();
        let catalog = Catalog::new(mesh, self.trust_domain.clone(), Some(&previous));
        self.catalogs.send_replace(Arc::new(catalog));
        let rejected = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        self.metrics.configuration(update.objects.len(), rejected);
        info!(objects = update.objects.len(), rejected, "configuration in force");
        self.report(update, addresses, problems);
    }

    /// Logs problems that are new, and keeps all for the page.
    fn report(&self, update: &Update, addresses: BTreeMap<String, Vec<IpAddr>>, problems: Vec<Problem>) {
        let mut status = self.status.lock();
        let known: BTreeSet<&Problem> = status.problems.iter().collect();
        for problem in &problems {
            if !known.contains(problem) {
                match problem.severity {
                    Severity::Error => warn!("{problem}"),
                    Severity::Warning => info!("{problem}"),
                }
            }
        }
        status.objects = Arc::clone(&update.objects);
        status.addresses = addresses;
        status.problems = problems;
    }
}

/// Puts the objects of `update` together, and its problems with those that only
/// show then.
#[must_use]
pub fn compile(update: &Update, previous: Option<&Mesh>) -> (Mesh, Vec<Problem>) {
    let mut objects = Objects::default();
    for (id, accepted) in update.objects.iter() {
        let place = Place {
            file: accepted.file.to_string_lossy().into(),
            line: accepted.document.line,
            lines: Arc::clone(accepted.document.lines()),
        };
        objects.places.note(id.kind.name(), &id.name, place);
        match &accepted.object {
            Object::Service(service) => {
                objects.services.insert(service.name.clone(), Arc::clone(service));
            }
            Object::Workload(workload) => {
                objects.workloads.insert(workload.name.clone(), Arc::clone(workload));
            }
            Object::Route(route) => {
                let key = (route.kind, route.name.clone());
                objects.routes.insert(key, Arc::clone(route));
            }
            Object::Grant(grant) => objects.grants.push(Arc::clone(grant)),
            Object::Policy(policy) => drop(objects.policies.insert(policy.name.clone(), Arc::clone(policy))),
        }
    }
    let (mesh, findings) = Mesh::compile(&objects, previous);
    let mut problems = update.problems.clone();
    problems.extend(findings.into_iter().map(|finding| place(update, finding)));
    problems.sort();
    (mesh, problems)
}

fn place(update: &Update, finding: Finding) -> Problem {
    let id = match finding.subject {
        Subject::Service(name) => ObjectId { kind: Kind::Service, name },
        Subject::Workload(name) => ObjectId { kind: Kind::Workload, name },
        Subject::Route(kind, name) => ObjectId { kind: Kind::Route(kind), name },
        Subject::Policy(name) => ObjectId { kind: Kind::TrafficPolicy, name },
    };
    let accepted = update.objects.get(&id);
    let path: FieldPath = finding.path.parse().unwrap_or_default();
    Problem {
        file: accepted.map(|accepted| accepted.file.to_path_buf()).unwrap_or_default(),
        line: accepted.map_or(0, |accepted| accepted.line_of(&path)),
        severity: if finding.refused { Severity::Error } else { Severity::Warning },
        object: Some(id.to_string()),
        field: finding.path,
        reason: finding.reason,
        previous_in_force: false,
    }
}
