//! Documents: from YAML to the objects of [`crate::core`], or to a complaint that
//! names the line and the field.
//!
//! Each document is judged by itself and knows nothing of its neighbours. What
//! needs other objects (does this backend exist?) is said by
//! [`crate::core::mesh`].
//!
//! Unknown fields: refused in our own kinds and wherever they would change which
//! traffic a rule matches or where it goes; reported as a warning elsewhere.

mod duration;
mod external;
pub mod gateway;
pub mod path;
mod policy;
mod route;
mod service;
pub mod split;
pub mod tree;
pub mod typed;
mod workload;

use std::{collections::BTreeMap, fmt, sync::Arc};

use pillion_wire::label::{is_label, is_subdomain};
use serde::Deserialize;

use crate::core::{
    grant::Grant,
    policy::TrafficPolicy,
    route::{Route, RouteKind},
    service::{Name, Service},
    workload::Workload,
};
use path::FieldPath;
use tree::{Entry, Node, Value};
use typed::{TypeError, Typed, typed};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The version of `pillion.dev` that is read.
const API_VERSION: &str = "pillion.dev/v1alpha1";
/// Its group.
const OUR_GROUP: &str = "pillion.dev";

/// The kinds of object that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Core `Service`.
    Service,
    /// `Workload` of `pillion.dev`.
    Workload,
    /// A Gateway API route.
    Route(RouteKind),
    /// Gateway API `ReferenceGrant`.
    ReferenceGrant,
    /// `TrafficPolicy` of `pillion.dev`.
    TrafficPolicy,
}

impl Kind {
    /// The kind that `apiVersion` and `kind` name, if it is one that is read.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "Service") if api_version == "v1" => Some(Self::Service),
            ("pillion.dev", "Workload") => Some(Self::Workload),
            ("pillion.dev", "TrafficPolicy") => Some(Self::TrafficPolicy),
            (gateway::GROUP, "HTTPRoute") => Some(Self::Route(RouteKind::Http)),
            (gateway::GROUP, "GRPCRoute") => Some(Self::Route(RouteKind::Grpc)),
            (gateway::GROUP, "TCPRoute") => Some(Self::Route(RouteKind::Tcp)),
            (gateway::GROUP, "TLSRoute") => Some(Self::Route(RouteKind::Tls)),
            (gateway::GROUP, "ReferenceGrant") => Some(Self::ReferenceGrant),
            _ => None,
        }
    }

    /// The kind as documents name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Workload => "Workload",
            Self::Route(kind) => kind.name(),
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
        }
    }
}

/// Which object a document describes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.name(), self.name)
    }
}

/// An object that passed its own checks.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Arc<Service>),
    /// A Workload.
    Workload(Arc<Workload>),
    /// A route of any kind.
    Route(Arc<Route>),
    /// A grant.
    Grant(Arc<Grant>),
    /// A policy.
    Policy(Arc<TrafficPolicy>),
}

/// Something to say about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The field; the object itself when empty.
    pub path: FieldPath,
    /// What is wrong with it.
    pub reason: String,
}

/// A document after its own checks.
#[derive(Clone, Debug)]
pub struct Document {
    /// Line where it starts.
    pub line: u64,
    /// What it describes, where that much can be told.
    pub id: Option<ObjectId>,
    /// The object, or everything that is wrong with it. `Ok(None)`: a document
    /// of a kind that is not read.
    pub outcome: Result<Option<Object>, Vec<Placed>>,
    /// What is odd but harmless.
    pub warnings: Vec<Placed>,
    lines: Arc<BTreeMap<String, u64>>,
    source: Source,
}

/// The text of a document, to find lines in when other objects turn out not to fit.
#[derive(Clone, Debug)]
struct Source {
    text: Arc<str>,
    first_line: u64,
}

impl Document {
    /// Whether this is what [`read`] would make of `text` at `first_line`.
    #[must_use]
    pub fn is_of(&self, text: &str, first_line: u64) -> bool {
        self.source.first_line == first_line && *self.source.text == *text
    }

    /// The line where its text starts.
    #[must_use]
    pub const fn first_line(&self) -> u64 {
        self.source.first_line
    }

    /// Lines of `spec.KEY` and of the items of lists there.
    #[must_use]
    pub const fn lines(&self) -> &Arc<BTreeMap<String, u64>> {
        &self.lines
    }

    /// The line of the field at `path`, or of its nearest ancestor that exists.
    #[must_use]
    pub fn line_of(&self, path: &FieldPath) -> u64 {
        Node::parse(&self.source.text, self.source.first_line).map_or(self.line, |node| node.line_of(path))
    }
}

/// An [`Issue`] with its line in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Line of the field.
    pub line: u64,
    /// The issue.
    pub issue: Issue,
}

/// The issues of one document while it is being read.
#[derive(Debug, Default)]
pub(crate) struct Issues {
    errors: Vec<Issue>,
    warnings: Vec<Issue>,
}

impl Issues {
    fn error(&mut self, path: FieldPath, reason: impl Into<String>) {
        self.errors.push(Issue { path, reason: reason.into() });
    }

    fn warn(&mut self, path: FieldPath, reason: impl Into<String>) {
        self.warnings.push(Issue { path, reason: reason.into() });
    }

    /// Notes unknown fields: those every object has, and what is below `metadata`
    /// and `status`, not at all, those
    /// for which `refuse` holds as errors, the others as warnings.
    fn unknown(&mut self, fields: Vec<FieldPath>, refuse: impl Fn(&FieldPath) -> bool) {
        for path in fields {
            let shape = path.shape();
            let root = shape.split('.').next().unwrap_or_default();
            if matches!(root, "apiVersion" | "kind" | "metadata" | "status") {
                continue;
            }
            if refuse(&path) {
                self.error(path, "unknown or unsupported field");
            } else {
                self.warn(path, "unknown field, ignored");
            }
        }
    }
}

/// Parses and checks the document `text`, which starts at line `first_line`.
#[must_use]
pub fn read(text: &str, first_line: u64) -> Document {
    let source = Source { text: text.into(), first_line };
    let node = match Node::parse(text, first_line) {
        Ok(node) => node,
        Err(error) => {
            return Document {
                line: first_line,
                id: None,
                outcome: Err(vec![Placed {
                    line: error.line,
                    issue: Issue { path: FieldPath::root(), reason: format!("not YAML: {}", error.reason) },
                }]),
                warnings: Vec::new(),
                lines: Arc::default(),
                source,
            };
        }
    };
    let mut issues = Issues::default();
    let (id, object) = interpret(&node, &mut issues);
    let place = |found: Vec<Issue>| {
        found.into_iter().map(|issue| Placed { line: node.line_of(&issue.path), issue }).collect::<Vec<_>>()
    };
    let warnings = place(issues.warnings);
    Document {
        line: node.line,
        id,
        outcome: if issues.errors.is_empty() { Ok(object) } else { Err(place(issues.errors)) },
        warnings,
        lines: Arc::new(lines(&node)),
        source,
    }
}

/// Lines of `spec.KEY`, of rules and ports there, and of the keys of rules: by these decisions are explained.
fn lines(node: &Node) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    let Some(Value::Mapping(entries)) = node.child("spec").map(|spec| &spec.value) else { return lines };
    for entry in entries {
        let path = format!("spec.{}", entry.key);
        // Of other lists nothing is decided item by item.
        if let Value::Sequence(items) = &entry.node.value
            && ["rules", "ports"].contains(&entry.key.as_str())
        {
            for (index, item) in items.iter().enumerate() {
                if let Value::Mapping(entries) = &item.value
                    && entry.key == "rules"
                {
                    let of_key = |entry: &Entry| (format!("{path}[{index}].{}", entry.key), entry.line);
                    lines.extend(entries.iter().map(of_key));
                }
                lines.insert(format!("{path}[{index}]"), item.line);
            }
        }
        lines.insert(path, entry.line);
    }
    lines
}

fn interpret(node: &Node, issues: &mut Issues) -> (Option<ObjectId>, Option<Object>) {
    let text = |key: &str| node.child(key).and_then(Node::as_str).unwrap_or_default();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind_name.is_empty() {
        let missing = if kind_name.is_empty() { "kind" } else { "apiVersion" };
        issues.error(FieldPath::root().key(missing), "missing");
        return (None, None);
    }
    let Some(kind) = Kind::of(api_version, kind_name) else {
        issues.warn(
            FieldPath::root().key("kind"),
            format!("{kind_name} of {api_version} is not a kind that Pillion reads, ignored"),
        );
        return (None, None);
    };
    let Some(metadata) = read_metadata(node, issues) else {
        return (None, None);
    };
    let object = match kind {
        Kind::Service => service::read(node, &metadata, issues).map(|it| Object::Service(it.into())),
        Kind::Workload => workload::read(node, &metadata, issues).map(|it| Object::Workload(it.into())),
        Kind::Route(RouteKind::Http) => route::read_http(node, &metadata, issues).map(|it| Object::Route(it.into())),
        Kind::Route(RouteKind::Grpc) => route::read_grpc(node, &metadata, issues).map(|it| Object::Route(it.into())),
        Kind::Route(RouteKind::Tcp) => route::read_tcp(node, &metadata, issues).map(|it| Object::Route(it.into())),
        Kind::Route(RouteKind::Tls) => route::read_tls(node, &metadata, issues).map(|it| Object::Route(it.into())),
        Kind::ReferenceGrant => route::read_grant(node, &metadata, issues).map(|it| Object::Grant(it.into())),
        Kind::TrafficPolicy => policy::read(node, &metadata, issues).map(|it| Object::Policy(it.into())),
    };
    let id = ObjectId { kind, name: metadata.name };
    (Some(id), object)
}

/// The parts of an object's metadata that are used.
#[derive(Debug)]
pub(crate) struct Metadata {
    name: Name,
    labels: BTreeMap<String, String>,
    created: Option<String>,
}

fn read_metadata(node: &Node, issues: &mut Issues) -> Option<Metadata> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: String,
        namespace: Option<String>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<String>,
    }
    #[derive(Deserialize)]
    struct Holder {
        metadata: Slim,
    }
    let Typed { value, .. } = accept(typed::<Holder>(node), issues)?;
    let slim = value.metadata;
    let path = FieldPath::root().key("metadata");
    let namespace = slim.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    if !is_label(&namespace) {
        issues.error(path.key("namespace"), not_a_label(&namespace));
    }
    if !is_subdomain(&slim.name) {
        issues.error(path.key("name"), not_a_label(&slim.name));
    }
    Some(Metadata {
        name: Name::new(namespace, slim.name),
        labels: slim.labels.unwrap_or_default(),
        created: slim.creation_timestamp,
    })
}

/// Turns a type error into an issue.
pub(crate) fn accept<T>(outcome: Result<Typed<T>, TypeError>, issues: &mut Issues) -> Option<Typed<T>> {
    outcome.map_err(|error| issues.error(error.path, error.reason)).ok()
}

pub(crate) fn not_a_label(text: &str) -> String {
    format!("`{text}` is not a DNS name: lower-case letters, digits and `-`, at most 63 characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused_and_foreign_kinds_are_ignored() {
        let bad = read("just: text\n", 1);
        assert!(bad.outcome.is_err());
        let foreign = read("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", 1);
        assert_eq!(foreign.outcome, Ok(None));
        assert_eq!(foreign.warnings.len(), 1);
    }

    #[test]
    fn a_bad_name_is_refused_at_its_line() {
        let document =
            read("apiVersion: v1\nkind: Service\nmetadata:\n  name: Bad_Name\nspec: {ports: [{port: 80}]}\n", 11);
        let errors = document.outcome.unwrap_err();
        assert_eq!(errors[0].line, 14);
        assert_eq!(errors[0].issue.path.to_string(), "metadata.name");
    }
}
