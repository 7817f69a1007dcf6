//! `spec.directResponse`.

use serde::Deserialize;

use super::super::{Issues, path::FieldPath};
use crate::core::policy::DirectResponse;

/// Envoy's default of `max_direct_response_body_size_bytes`.
const MAX_BODY_BYTES: usize = 4096;

#[derive(Deserialize)]
pub(super) struct Raw {
    status: u16,
    #[serde(default)]
    body: String,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> DirectResponse {
    if !(200..600).contains(&raw.status) {
        issues.error(path.key("status"), format!("{} is not in 200..=599", raw.status));
    }
    if raw.body.len() > MAX_BODY_BYTES {
        issues.error(path.key("body"), format!("{} bytes are more than {MAX_BODY_BYTES}", raw.body.len()));
    }
    DirectResponse { status: raw.status, body: raw.body }
}
