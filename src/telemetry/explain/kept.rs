//! Text of a fixed length at most, in place.

use std::borrow::Cow;

/// The first `N` bytes of something. Takes no memory of its own, and holds none of whoever it was copied from.
#[derive(Clone, Copy, Debug)]
pub struct Kept<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Default for Kept<N> {
    fn default() -> Self {
        Self { length: 0, bytes: [0; N] }
    }
}

impl<const N: usize> Kept<N> {
    /// As much of `text` as fits.
    pub fn of(text: &[u8]) -> Self {
        let mut kept = Self::default();
        let length = text.len().min(N).min(u8::MAX.into());
        if let (Some(place), Some(text)) = (kept.bytes.get_mut(..length), text.get(..length)) {
            place.copy_from_slice(text);
            kept.length = length as u8;
        }
        kept
    }

    /// What is kept.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes.get(..self.length.into()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(Kept::<4>::of(b"abcdef").text(), "abcd");
        assert_eq!(Kept::<4>::of(b"ab").text(), "ab");
        assert_eq!(Kept::<4>::default().text(), "");
        assert_eq!(Kept::<3>::of("aéé".as_bytes()).text(), "aé");
        assert_eq!(Kept::<2>::of("aé".as_bytes()).text(), "a\u{fffd}");
    }
}
