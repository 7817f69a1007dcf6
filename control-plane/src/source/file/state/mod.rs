//! From the documents of all files to the objects in force.
//!
//! A refused object keeps its last good version. An object that is no longer
//! written anywhere is gone, unless its file holds something that cannot be told
//! to be any object: then the missing ones may be what it was, and they stay.
//! Of two documents for one object the first by path wins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    path::Path,
    sync::Arc,
};

use crate::{
    document::{Document, Object, ObjectId, Placed, read, split::split},
    source::{Accepted, Problem, Severity, Update},
};

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Documents.
    Documents(Vec<Arc<Document>>),
    /// Nothing that could be read: why.
    Unreadable(String),
}

impl Content {
    /// The documents of `text`; those that are in `previous` as they are, are kept.
    #[must_use]
    pub fn parse(text: &str, previous: Option<&Self>) -> Self {
        let known: HashMap<u64, &Arc<Document>> = match previous {
            Some(Self::Documents(documents)) => {
                documents.iter().map(|document| (document.first_line(), document)).collect()
            }
            _ => HashMap::new(),
        };
        let documents = split(text)
            .into_iter()
            .map(|part| {
                let same = known.get(&part.line).filter(|document| document.is_of(part.text, part.line));
                same.map_or_else(|| Arc::new(read(part.text, part.line)), |document| Arc::clone(document))
            })
            .collect();
        Self::Documents(documents)
    }
}

/// The objects in force, from one set of files to the next.
#[derive(Debug, Default)]
pub struct State {
    in_force: Arc<BTreeMap<ObjectId, Accepted>>,
}

impl State {
    /// Puts the files together, in the order of their paths.
    pub fn compose<'a>(&mut self, files: impl Iterator<Item = (&'a Path, &'a Content)>) -> Update {
        let mut draft = Draft::default();
        for (path, content) in files {
            let path: Arc<Path> = path.into();
            match content {
                Content::Documents(documents) => {
                    for document in documents {
                        draft.add(&path, document);
                    }
                }
                Content::Unreadable(reason) => {
                    draft.problems.push(file_problem(&path, reason));
                    draft.opaque.insert(path);
                }
            }
        }
        let (objects, problems) = draft.finish(&self.in_force);
        self.in_force = Arc::new(objects);
        Update { objects: Arc::clone(&self.in_force), problems }
    }
}

/// A set of files half put together.
#[derive(Default)]
struct Draft {
    objects: BTreeMap<ObjectId, Accepted>,
    refused: BTreeSet<ObjectId>,
    /// Files in which some object cannot be told.
    opaque: BTreeSet<Arc<Path>>,
    problems: Vec<Problem>,
    /// Problems of refused objects: whether the object stays in force is not known yet.
    refusals: Vec<(Option<ObjectId>, Problem)>,
}

impl Draft {
    fn add(&mut self, path: &Arc<Path>, document: &Arc<Document>) {
        let id = document.id.as_ref();
        for placed in &document.warnings {
            self.problems.push(problem(path, placed, id, Severity::Warning));
        }
        match (&document.outcome, id) {
            (Ok(Some(object)), Some(id)) => self.accept(path, document, object, id),
            (Ok(_), _) => {}
            (Err(errors), id) => {
                match id {
                    Some(id) => {
                        self.refused.insert(id.clone());
                    }
                    None => {
                        self.opaque.insert(Arc::clone(path));
                    }
                }
                for placed in errors {
                    let problem = problem(path, placed, id, Severity::Error);
                    self.refusals.push((id.cloned(), problem));
                }
            }
        }
    }

    fn accept(&mut self, path: &Arc<Path>, document: &Arc<Document>, object: &Object, id: &ObjectId) {
        match self.objects.entry(id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Accepted {
                    object: object.clone(),
                    file: Arc::clone(path),
                    document: Arc::clone(document),
                });
            }
            Entry::Occupied(first) => {
                let first = first.get();
                self.problems.push(Problem {
                    file: path.to_path_buf(),
                    line: document.line,
                    severity: Severity::Error,
                    object: Some(id.to_string()),
                    field: String::new(),
                    reason: format!(
                        "already described at {}:{}, which wins",
                        first.file.display(),
                        first.document.line
                    ),
                    previous_in_force: false,
                });
            }
        }
    }

    fn finish(mut self, previous: &BTreeMap<ObjectId, Accepted>) -> (BTreeMap<ObjectId, Accepted>, Vec<Problem>) {
        let mut kept = BTreeSet::new();
        for (id, old) in previous {
            let may_be_meant = self.refused.contains(id) || self.opaque.contains(&old.file);
            // A document that comes after by path does not take the place of one that is only broken.
            let is_replaced = self.objects.get(id).is_some_and(|new| new.file <= old.file);
            if may_be_meant && !is_replaced {
                self.objects.insert(id.clone(), old.clone());
                kept.insert(id);
            }
        }
        for (id, mut problem) in self.refusals {
            problem.previous_in_force = id.as_ref().is_some_and(|id| kept.contains(id));
            self.problems.push(problem);
        }
        self.problems.sort();
        (self.objects, self.problems)
    }
}

fn problem(path: &Path, placed: &Placed, id: Option<&ObjectId>, severity: Severity) -> Problem {
    Problem {
        file: path.to_owned(),
        line: placed.line,
        severity,
        object: id.map(ToString::to_string),
        field: placed.issue.path.to_string(),
        reason: placed.issue.reason.clone(),
        previous_in_force: false,
    }
}

fn file_problem(path: &Path, reason: &str) -> Problem {
    Problem {
        file: path.to_owned(),
        line: 0,
        severity: Severity::Error,
        object: None,
        field: String::new(),
        reason: reason.to_owned(),
        previous_in_force: false,
    }
}

#[cfg(test)]
mod tests;
