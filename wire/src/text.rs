//! What the types that are one string share: serde through `Display` and
//! `FromStr`, so that a settings file refuses exactly what the wire refuses,
//! and short excerpts for error messages.

/// Implements `Serialize` and `Deserialize` through `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($kind:ty),+ $(,)?) => {$(
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(crate) use serde_as_text;

/// The head of a refused text, long enough to recognise it: a peer must not
/// be able to fill the log.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 128;
    let mut head: String = text.chars().take(LONGEST).collect();
    if head.len() < text.len() {
        head.push('…');
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_end_at_a_character_and_stay_short() {
        assert_eq!(excerpt("orders"), "orders");
        let long = excerpt(&"é".repeat(10_000));
        assert_eq!(long.chars().count(), 129);
        assert!(long.ends_with('…'));
    }
}
