//! `spec.fallback`.

use pillion_wire::{name::ServicePort, resilience::Fallback};
use serde::Deserialize;

use super::super::{Issues, path::FieldPath};

#[derive(Deserialize)]
pub(super) struct Raw {
    #[serde(default)]
    backends: Vec<RawBackend>,
    response: Option<RawResponse>,
}

#[derive(Deserialize)]
struct RawBackend {
    name: String,
    namespace: Option<String>,
    port: u16,
}

#[derive(Deserialize)]
struct RawResponse {
    status: u16,
    #[serde(default)]
    body: String,
}

/// Backends that are asked one after the other: each one makes the caller wait.
const MOST_BACKENDS: usize = 8;

pub(super) fn read(raw: Raw, namespace: &str, path: &FieldPath, issues: &mut Issues) -> Fallback {
    let places = path.key("backends");
    if raw.backends.is_empty() && raw.response.is_none() {
        issues.error(path.clone(), "says nothing: write backends, a response, or both");
    }
    if raw.backends.len() > MOST_BACKENDS {
        issues.error(places.clone(), format!("at most {MOST_BACKENDS} are asked"));
    }
    let mut backends = Vec::with_capacity(raw.backends.len());
    for (index, backend) in raw.backends.into_iter().enumerate() {
        let path = places.index(index);
        if backend.namespace.is_some_and(|other| other != namespace) {
            issues.error(path.key("namespace"), "a backend in another namespace than the policy is not supported");
        }
        match ServicePort::new(&backend.name, namespace, backend.port) {
            Ok(backend) => backends.push(backend),
            Err(error) => issues.error(path, error.to_string()),
        }
    }
    if raw.response.as_ref().is_some_and(|response| !(200..600).contains(&response.status)) {
        issues.error(path.key("response").key("status"), "is no final HTTP status");
    }
    Fallback { backends, response: raw.response.map(|response| (response.status, response.body)) }
}
