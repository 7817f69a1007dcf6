//! What went by in a body: bytes, and messages of gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a body that somebody else sends. Clones are the same body's.
#[derive(Clone, Debug, Default)]
pub struct Flow(Arc<(AtomicU64, AtomicU64)>);

impl Flow {
    /// So many bytes more, and so many messages that began in them.
    pub fn add(&self, bytes: usize, messages: u64) {
        let (all_bytes, all_messages) = &*self.0;
        all_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if messages > 0 {
            all_messages.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Bytes and messages so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let (bytes, messages) = &*self.0;
        (bytes.load(Ordering::Relaxed), messages.load(Ordering::Relaxed))
    }
}

/// Counts messages of gRPC (gRPC over HTTP/2, Length-Prefixed-Message: a flag, four bytes of length, the message).
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    /// Bytes of the prefix that were seen.
    prefix: u8,
    /// Length of the message as far as it was seen, then what is left of it.
    left: u32,
}

impl Messages {
    /// How many messages begin in this, the next part of the body.
    pub fn begin_in(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((first, rest)) = data.split_first() {
            if self.prefix < 5 {
                if self.prefix == 0 {
                    begun += 1;
                } else {
                    self.left = self.left << 8 | u32::from(*first);
                }
                self.prefix += 1;
                data = rest;
            } else {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                data = data.get(length..).unwrap_or_default();
                self.left -= u32::try_from(length).unwrap_or(self.left);
            }
            if self.prefix == 5 && self.left == 0 {
                self.prefix = 0;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(sizes in prop::collection::vec(0_usize..300, 0..20), cut in 1_usize..40) {
            let mut body = Vec::new();
            for size in &sizes {
                body.push(0);
                body.extend_from_slice(&u32::try_from(*size).expect("small").to_be_bytes());
                body.extend(std::iter::repeat_n(7, *size));
            }
            let mut messages = Messages::default();
            let begun: u64 = body.chunks(cut).map(|part| messages.begin_in(part)).sum();
            prop_assert_eq!(begun, sizes.len() as u64);
        }

        #[test]
        fn nothing_panics(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
            let mut messages = Messages::default();
            for part in parts {
                messages.begin_in(&part);
            }
        }
    }
}
