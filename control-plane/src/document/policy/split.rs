//! `spec.split`.

use serde::Deserialize;

use super::{
    super::{Issues, path::FieldPath},
    load_balancing::{RawHashOn, hash_source},
};
use crate::core::policy::StickySplit;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    #[serde(default)]
    hash_on: Vec<RawHashOn>,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> StickySplit {
    let path = path.key("hashOn");
    if raw.hash_on.is_empty() {
        issues.error(path.clone(), "is needed: a header, a cookie, a queryParam or the sourceAddress");
    }
    let hash_on = raw.hash_on.into_iter().enumerate();
    StickySplit { hash_on: hash_on.filter_map(|(index, raw)| hash_source(raw, &path.index(index), issues)).collect() }
}
