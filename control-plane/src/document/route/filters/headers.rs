//! `HTTPHeaderFilter`.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};
use pillion_wire::header;

use crate::{
    core::filter::HeaderChanges,
    document::{
        Issues,
        gateway::{Header, HeaderFilter},
        path::FieldPath,
    },
};

/// Of several fields of one name in a list the first counts, as Gateway API says.
pub(super) fn read(raw: HeaderFilter, path: &FieldPath, issues: &mut Issues) -> HeaderChanges {
    if raw.set.is_empty() && raw.add.is_empty() && raw.remove.is_empty() {
        issues.error(path.clone(), "changes nothing: write set, add or remove");
    }
    let removed = path.key("remove");
    let mut remove = Vec::with_capacity(raw.remove.len());
    for (index, name) in raw.remove.into_iter().enumerate() {
        remove.extend(field_name(&name, &removed.index(index), issues));
    }
    HeaderChanges {
        set: fields(raw.set, &path.key("set"), issues),
        add: fields(raw.add, &path.key("add"), issues),
        remove,
    }
}

fn fields(raw: Vec<Header>, path: &FieldPath, issues: &mut Issues) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let path = path.index(index);
        let Some(name) = field_name(&raw.name, &path.key("name"), issues) else { continue };
        if !seen.insert(name.clone()) {
            issues.warn(path.key("name"), format!("`{name}` is there twice, ignored"));
            continue;
        }
        if raw.value.is_empty() || HeaderValue::from_str(&raw.value).is_err() {
            issues.error(path.key("value"), format!("{:?} cannot be the value of a header", raw.value));
        }
        found.push((name, raw.value));
    }
    found
}

/// The name in lower case.
pub(super) fn field_name(name: &str, path: &FieldPath, issues: &mut Issues) -> Option<String> {
    if let Some(reason) = header::protected(name) {
        issues.error(path.clone(), format!("`{name}` {reason}"));
        return None;
    }
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        issues.error(path.clone(), format!("`{name}` cannot be the name of a header"));
        return None;
    }
    Some(name.to_ascii_lowercase())
}
