//! What the policies of Services say of the workload ports behind them.

use std::collections::{HashMap, hash_map::Entry};

use pillion_wire::name::ServicePort;

use super::{
    mesh::{Finding, Subject},
    service::Name,
};

/// One section of policies, by workload port. Where several Services lead to one port, the first by name counts, for the
/// callers of all of them: a sidecar does not know by which name it was called.
#[derive(Debug)]
pub(super) struct Said<'a, T> {
    section: &'static str,
    ports: HashMap<(&'a Name, u16), (T, ServicePort)>,
}

impl<'a, T: Clone + PartialEq> Said<'a, T> {
    /// Nothing said yet of `section`, as documents call it.
    pub(super) fn new(section: &'static str) -> Self {
        Self { section, ports: HashMap::new() }
    }

    /// The policy of `service` says `what` of the ports behind it.
    pub(super) fn note(
        &mut self,
        service: &ServicePort,
        members: &[(&'a Name, u16)],
        what: Option<&T>,
        findings: &mut Vec<Finding>,
    ) {
        let Some(what) = what else { return };
        for &(workload, port) in members {
            match self.ports.entry((workload, port)) {
                Entry::Vacant(free) => drop(free.insert((what.clone(), service.clone()))),
                Entry::Occupied(taken) if taken.get().0 == *what => {}
                Entry::Occupied(taken) => findings.push(Finding {
                    subject: Subject::Workload(workload.clone()),
                    path: "spec.ports".to_owned(),
                    reason: format!(
                        "port {port} has {} of Service {}; what the policy of {service} says of it has no effect here",
                        self.section,
                        taken.get().1
                    ),
                    refused: false,
                }),
            }
        }
    }

    /// What counts for a port.
    pub(super) fn of<'b>(&'b self, workload: &'b Name, port: u16) -> Option<&'b T> {
        self.ports.get(&(workload, port)).map(|(what, _)| what)
    }

    /// Takes back what was said of a port. Was anything?
    pub(super) fn take_back(&mut self, workload: &'a Name, port: u16) -> bool {
        self.ports.remove(&(workload, port)).is_some()
    }
}
