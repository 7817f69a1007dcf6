//! What documents say at a line: the words of whoever wrote them.

use std::fs;
use std::path::Path;

use pillion_wire::origin::Origin;
use serde::Serialize;

/// Lines of a section that are quoted, at most.
const MOST_LINES: usize = 8;

/// A place in the documents.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Quote {
    /// Kind, namespace and name.
    pub(super) object: String,
    /// The field; empty for the object as a whole.
    pub(super) field: String,
    /// `FILE:LINE`.
    pub(super) line: Option<String>,
    /// What stands there.
    pub(super) text: String,
}

impl Quote {
    /// What stands at `origin` in the folder `dir`.
    pub(super) fn of(dir: &Path, origin: &Origin) -> Self {
        let text = fs::read_to_string(dir.join(&*origin.file)).unwrap_or_default();
        let first = usize::try_from(origin.line).unwrap_or(usize::MAX).saturating_sub(1);
        let quoted = if origin.line == 0 { String::new() } else { block(&text, first) };
        Self { object: origin.object.to_string(), field: origin.field.clone(), line: origin.place(), text: quoted }
    }

    /// Object, field and place, for people.
    pub(super) fn place(&self) -> String {
        let field = if self.field.is_empty() { String::new() } else { format!(" {}", self.field) };
        let line = self.line.as_ref().map_or_else(String::new, |line| format!(" ({line})"));
        format!("{}{field}{line}", self.object)
    }
}

/// The line and those below it that are further in, on one line.
fn block(text: &str, first: usize) -> String {
    let mut lines = text.lines().skip(first);
    let Some(start) = lines.next() else { return String::new() };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let below = lines.take_while(|line| indent(line) > indent(start) && !line.trim().is_empty());
    let all: Vec<&str> = std::iter::once(start.trim()).chain(below.map(str::trim)).collect();
    let more = if all.len() > MOST_LINES { " …" } else { "" };
    format!("{}{more}", all.iter().take(MOST_LINES).copied().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_quoted_as_far_as_it_goes() {
        let text = "spec:\n  limits:\n    requests: 1\n    pending: 2\n  breaker: {}\n";
        assert_eq!(block(text, 1), "limits: requests: 1 pending: 2");
        assert_eq!(block(text, 4), "breaker: {}");
        assert_eq!(block(text, 99), "");
    }
}
