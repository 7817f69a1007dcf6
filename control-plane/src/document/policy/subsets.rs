//! `spec.subsets`.

use std::collections::BTreeMap;

use pillion_wire::label::is_label;
use serde::Deserialize;

use super::super::{Issues, path::FieldPath};
use crate::core::policy::Subset;

#[derive(Deserialize)]
pub(super) struct Raw {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Each is a cluster of its own, for whoever asks for all of them.
const MOST: usize = 64;

pub(super) fn read(raw: Vec<Raw>, path: &FieldPath, issues: &mut Issues) -> Vec<Subset> {
    if raw.len() > MOST {
        issues.error(path.clone(), format!("a Service has at most {MOST} subsets"));
    }
    let mut subsets: Vec<Subset> = Vec::with_capacity(raw.len());
    for (index, Raw { name, labels }) in raw.into_iter().enumerate() {
        let path = path.index(index);
        if !is_label(&name) {
            issues.error(path.key("name"), format!("`{name}` is no DNS label"));
        }
        if subsets.iter().any(|earlier| earlier.name == name) {
            issues.error(path.key("name"), "another subset has this name");
        }
        if labels.is_empty() {
            issues.error(path.key("labels"), "a subset needs a label at least: else it is the whole Service");
        }
        subsets.push(Subset { name, labels });
    }
    subsets
}
