//! Cuts a file into its YAML documents, so that one that is not YAML leaves its
//! neighbours readable.
//!
//! A line that starts with `---` ends a document wherever it stands, even inside
//! a block scalar (YAML 1.2.2 section 9.1.2), so no parser is needed to find it.

/// The text of one document and the line where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// First line, from 1.
    pub line: u64,
    /// The text.
    pub text: &'a str,
}

/// The documents of `text` that hold more than comments.
#[must_use]
pub fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_marker(line, "---") || is_marker(line, "...") {
            push(&mut parts, text.get(start..offset), start_line);
            // Content may follow the marker on its own line: `--- {a: 1}`.
            start = offset + 3;
            start_line = number;
        }
        offset += line.len();
    }
    push(&mut parts, text.get(start..), start_line);
    parts
}

fn push<'a>(parts: &mut Vec<Part<'a>>, text: Option<&'a str>, line: u64) {
    let Some(text) = text else { return };
    let is_content = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
    };
    if text.lines().any(is_content) {
        parts.push(Part { line, text });
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn documents_keep_their_lines() {
        let parts = split("# head\na: 1\n---\nb: 2\n---\n# nothing\n---\r\nc: 3\n...\n");
        let seen: Vec<(u64, &str)> = parts.iter().map(|part| (part.line, part.text.trim())).collect();
        assert_eq!(seen, [(1, "# head\na: 1"), (3, "b: 2"), (7, "c: 3")]);
    }

    #[test]
    fn a_marker_needs_a_space_or_an_end() {
        assert_eq!(split("a: |\n  ---\nb: ---x\n---x: 1\n").len(), 1);
        assert_eq!(split("--- {a: 1}\n--- {b: 1}").len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_loss_of_content(text in ".{0,200}") {
            for part in split(&text) {
                prop_assert!(text.contains(part.text));
            }
        }
    }
}
