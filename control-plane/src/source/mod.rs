//! Where configuration comes from. A source hands out whole sets of accepted
//! objects, and says what it refused and why.

pub mod file;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use crate::document::{Document, Object, ObjectId, path::FieldPath};

/// Everything that a source has accepted, and what is to be said about the rest.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The objects in force.
    pub objects: BTreeMap<ObjectId, Accepted>,
    /// Errors and warnings, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// An object in force and where it stands.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The object.
    pub object: Object,
    /// Its file, relative to the directory.
    pub file: PathBuf,
    /// Its document.
    pub document: std::sync::Arc<Document>,
}

impl Accepted {
    /// The line of `path`.
    #[must_use]
    pub fn line_of(&self, path: &FieldPath) -> u64 {
        self.document.line_of(path)
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is refused.
    Error,
    /// The object is in force, but says something odd.
    Warning,
}

/// Something to say about the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, relative to the directory.
    pub file: PathBuf,
    /// The line; 0 for the file as a whole.
    pub line: u64,
    /// How bad it is.
    pub severity: Severity,
    /// Kind, namespace and name, where they can be told.
    pub object: Option<String>,
    /// The path of the field; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// An earlier version of the object stays in force.
    pub previous_in_force: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{}:{}: {severity}: ", self.file.display(), self.line)?;
        if let Some(object) = &self.object {
            write!(formatter, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.reason)?;
        if self.previous_in_force {
            formatter.write_str(" (the previous version stays in force)")?;
        }
        Ok(())
    }
}
