//! Regular expressions that values are compared with: one bound for both ends, so that what the control plane accepts no
//! sidecar refuses.

/// Bytes that one expression may compile to. What a request may cost is bounded by it.
pub const MOST_BYTES: usize = 64 << 10;

/// The expression that matches whole values only, where `text` matches a part.
#[must_use]
pub fn whole(text: &str) -> String {
    format!("^(?:{text})$")
}
