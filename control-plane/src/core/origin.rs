//! Where objects stand, so that what is made of them can say where it comes from.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pillion_wire::origin::Origin;

use super::service::Name;

/// Where one object stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its file.
    pub file: Arc<str>,
    /// The line where it starts.
    pub line: u64,
    /// Lines of what decisions are explained by: `spec.KEY`, and the items of lists there, `spec.KEY[0]`.
    pub lines: Arc<BTreeMap<String, u64>>,
}

/// Where all objects stand; those that are missing have no file.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<(&'static str, Name), (Arc<str>, Place)>);

impl Places {
    /// Notes where the object of this kind and name stands.
    pub fn note(&mut self, kind: &'static str, name: &Name, place: Place) {
        self.0.insert((kind, name.clone()), (format!("{kind} {name}").into(), place));
    }

    /// The origin of `field` of an object; empty for the object itself. A field that has no line of its own has that of
    /// what it stands in.
    #[must_use]
    pub fn origin(&self, kind: &'static str, name: &Name, field: String) -> Origin {
        let Some((object, place)) = self.0.get(&(kind, name.clone())) else {
            let object = format!("{kind} {name}").into();
            return Origin { object, field, file: Arc::default(), line: 0 };
        };
        let mut path = field.as_str();
        let line = loop {
            match (place.lines.get(path), path.rsplit_once('.')) {
                (Some(line), _) => break *line,
                (None, Some((parent, _))) => path = parent,
                (None, None) => break place.line,
            }
        };
        Origin { object: Arc::clone(object), field, file: Arc::clone(&place.file), line }
    }
}

/// Counts when two are compared, but not in a hash: versions of resources for those who are not told of it stay as
/// they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unhashed<T>(pub T);

impl<T> Hash for Unhashed<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_without_a_line_has_that_of_what_it_stands_in() {
        let lines = BTreeMap::from([("spec.rules[1]".to_owned(), 9)]);
        let mut places = Places::default();
        let name = Name::new("shop", "a");
        places.note("HTTPRoute", &name, Place { file: "a.yaml".into(), line: 3, lines: Arc::new(lines) });
        let line = |field: &str| places.origin("HTTPRoute", &name, field.to_owned()).line;
        assert_eq!((line("spec.rules[1].timeouts"), line("spec.rules[0]"), line("")), (9, 3, 3));
        assert_eq!(places.origin("Service", &name, String::new()).file.as_ref(), "");
    }
}
