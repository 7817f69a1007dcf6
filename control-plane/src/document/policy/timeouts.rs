//! `spec.timeouts`.

use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};
use crate::core::policy::Timeouts;

#[derive(Deserialize)]
pub(super) struct Raw {
    connect: Option<Written>,
}

pub(super) fn read(raw: &Raw, path: &FieldPath, issues: &mut Issues) -> Timeouts {
    let connect = raw.connect.map(|written| written.0);
    if connect.is_some_and(|connect| connect.is_zero()) {
        issues.error(path.key("connect"), "no connection is made in no time");
    }
    Timeouts { connect }
}
