//! Subsets of a Service's workloads, that routes may send to.

use std::collections::BTreeMap;

use super::{
    super::{
        mesh::{Finding, Objects, Subject},
        service::{Name, Service},
        workload::Workload,
    },
    Policies, Target, TrafficPolicy,
};

/// One of `spec.subsets`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subset {
    /// What routes call it, a DNS label.
    pub name: String,
    /// Labels that a workload has to carry, besides those that the Service selects by. Never empty.
    pub labels: BTreeMap<String, String>,
}

impl Subset {
    /// Is a workload with these labels in it?
    #[must_use]
    pub fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Policies<'_> {
    /// Reports subsets that nobody is in. `members` gives the workloads of a Service.
    pub(in crate::core) fn check_subsets<'w>(
        objects: &Objects,
        members: impl Fn(&Service) -> Vec<&'w Workload>,
        findings: &mut Vec<Finding>,
    ) {
        for policy in objects.policies.values() {
            let Some(subsets) = &policy.policy.subsets else { continue };
            for service in services(policy, objects) {
                let members = members(service);
                for (index, subset) in subsets.iter().enumerate() {
                    if members.iter().all(|workload| !subset.has(&workload.labels)) {
                        findings.push(Finding {
                            subject: Subject::Policy(policy.name.clone()),
                            path: format!("spec.subsets[{index}].labels"),
                            reason: format!(
                                "no workload of Service {} has these labels: what is sent to the subset fails",
                                service.name
                            ),
                            refused: false,
                        });
                    }
                }
            }
        }
    }
}

/// The Services that a policy is for, each once.
fn services<'a>(policy: &TrafficPolicy, objects: &'a Objects) -> Vec<&'a Service> {
    let mut names: Vec<Name> = Vec::new();
    for target in &policy.targets {
        if let Target::Service { name, .. } = target {
            names.push(Name::new(policy.name.namespace.clone(), name));
        }
    }
    names.sort_unstable();
    names.dedup();
    names.iter().filter_map(|name| objects.services.get(name).map(AsRef::as_ref)).collect()
}
