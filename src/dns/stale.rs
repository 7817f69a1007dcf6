//! Answers of upstreams, kept for the time when no upstream answers (RFC 8767). Not a cache: while one answers, every
//! query goes there.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Answers kept at most.
const MAX_ANSWERS: usize = 4096;
/// The longest answer that is kept; so all together are at most 8 MiB.
const MAX_LENGTH: usize = 2048;
/// How old an answer may be: RFC 8767, section 5, suggests one to three days.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The last positive answer to each question, those that were not renewed for longest forgotten first.
///
/// Two generations: the young one takes what is new or renewed; when it is full, it becomes the old one, and what is
/// in that one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Stale {
    young: HashMap<Box<[u8]>, Answer>,
    old: HashMap<Box<[u8]>, Answer>,
}

#[derive(Debug)]
struct Answer {
    raw: Box<[u8]>,
    at: Instant,
}

impl Stale {
    /// Keeps `raw` as the last word on `key`.
    pub(super) fn keep(&mut self, key: Box<[u8]>, raw: &[u8], now: Instant) {
        if raw.len() > MAX_LENGTH {
            self.forget(&key);
            return;
        }
        if self.young.len() >= MAX_ANSWERS / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, Answer { raw: raw.into(), at: now });
    }

    /// An upstream said that there is no such thing any more.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// The last answer to `key`, when it is not too old.
    pub(super) fn get(&self, key: &[u8], now: Instant) -> Option<&[u8]> {
        let answer = self.young.get(key).or_else(|| self.old.get(key))?;
        (now.duration_since(answer.at) <= MAX_AGE).then_some(&*answer.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Box<[u8]> {
        number.to_be_bytes().into()
    }

    #[test]
    fn an_answer_is_kept_for_a_day() {
        let (mut stale, start) = (Stale::default(), Instant::now());
        stale.keep(key(1), b"first", start);
        stale.keep(key(1), b"second", start + Duration::from_secs(1));
        for (age, expected) in [
            (Duration::from_secs(1), Some(&b"second"[..])),
            (MAX_AGE + Duration::from_secs(1), Some(b"second")),
            (MAX_AGE + Duration::from_secs(2), None),
        ] {
            assert_eq!(stale.get(&key(1), start + age), expected, "{age:?}");
        }
        assert_eq!(stale.get(&key(2), start), None);
        stale.forget(&key(1));
        assert_eq!(stale.get(&key(1), start), None);
    }

    #[test]
    fn what_was_not_renewed_for_longest_is_forgotten_first() {
        let (mut stale, now) = (Stale::default(), Instant::now());
        for number in 0..3 * MAX_ANSWERS {
            stale.keep(key(number), b"answer", now);
            stale.keep(key(0), b"renewed", now);
            assert!(stale.young.len() + stale.old.len() <= MAX_ANSWERS, "bounded");
        }
        assert_eq!(stale.get(&key(0), now), Some(&b"renewed"[..]));
        assert_eq!(stale.get(&key(1), now), None);
        assert!(stale.get(&key(3 * MAX_ANSWERS - MAX_ANSWERS / 2), now).is_some(), "the later half is always there");
    }

    #[test]
    fn a_long_answer_is_not_kept_and_takes_the_place_of_a_short_one() {
        let (mut stale, now) = (Stale::default(), Instant::now());
        stale.keep(key(1), b"short", now);
        stale.keep(key(1), &vec![0; MAX_LENGTH + 1], now);
        assert_eq!(stale.get(&key(1), now), None);
    }
}
