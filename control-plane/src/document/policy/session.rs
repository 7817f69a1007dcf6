//! `spec.sessionPersistence`: as in a rule (GEP-1619), and `strict`.

use serde::Deserialize;

use super::super::{
    Issues,
    duration::Written,
    gateway::{CookieConfig, RuleSession},
    path::FieldPath,
    route::session,
};
use crate::core::policy::SessionPersistence;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    session_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    absolute_timeout: Option<Written>,
    idle_timeout: Option<Written>,
    cookie_config: Option<CookieConfig>,
    #[serde(default)]
    strict: bool,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> SessionPersistence {
    let Raw { session_name, kind, absolute_timeout, idle_timeout, cookie_config, strict } = raw;
    let rule = RuleSession { session_name, kind, absolute_timeout, idle_timeout, cookie_config };
    SessionPersistence { strict, ..session::read(rule, path, issues) }
}
