//! Who may look: a token, changed for a session; tries are limited, comparisons take the same time whatever they find.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;

/// How long a session lasts.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time; the oldest goes first.
const MOST_SESSIONS: usize = 64;
/// Wrong tokens that an address may send within [`TRIES_WITHIN`].
const MOST_TRIES: usize = 10;
const TRIES_WITHIN: Duration = Duration::from_secs(60);
/// Addresses whose tries are remembered; all others count as one.
const MOST_ADDRESSES: usize = 256;
/// The shortest token of a file.
const SHORTEST_TOKEN: usize = 16;

/// The token, and the sessions that were begun with it.
#[derive(Debug)]
pub struct Sessions {
    token: [u8; 32],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: VecDeque<([u8; 32], Duration)>,
    tries: HashMap<Option<IpAddr>, VecDeque<Duration>>,
}

/// What came of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the token.
    Right,
    /// It is not.
    Wrong,
    /// It was not looked at: too many were wrong of late.
    TooMany,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the dashboard's token in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("others can read the dashboard's token in {}; chmod 600 it", .0.display())]
    Open(PathBuf),
    /// It could be guessed.
    #[error("the dashboard's token in {} is shorter than {SHORTEST_TOKEN} characters", .0.display())]
    Short(PathBuf),
}

/// A new token or session id: 256 random bits.
///
/// # Errors
/// When the system has no randomness.
pub fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The token in a file.
///
/// # Errors
/// See [`TokenFileError`].
pub fn read_token(path: &Path) -> Result<String, TokenFileError> {
    let read = |source| TokenFileError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(read)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(TokenFileError::Open(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN {
        return Err(TokenFileError::Short(path.to_owned()));
    }
    Ok(token.to_owned())
}

impl Sessions {
    /// Sessions are begun with this token.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self { token: hash(token), state: Mutex::default() }
    }

    /// Is it the token? Asked from `address`, `now` since whenever.
    pub fn check(&self, token: &str, address: IpAddr, now: Duration) -> Verdict {
        let mut state = self.state.lock();
        let is_of_late = |at: &Duration| *at + TRIES_WITHIN > now;
        if state.tries.len() >= MOST_ADDRESSES {
            state.tries.retain(|_, tries| tries.back().is_some_and(is_of_late));
        }
        let known = state.tries.contains_key(&Some(address)) || state.tries.len() < MOST_ADDRESSES;
        let tries = state.tries.entry(known.then_some(address)).or_default();
        while tries.front().is_some_and(|first| !is_of_late(first)) {
            tries.pop_front();
        }
        if tries.len() >= MOST_TRIES {
            return Verdict::TooMany;
        }
        let is_right = verify_slices_are_equal(&hash(token), &self.token).is_ok();
        if !is_right {
            tries.push_back(now);
        }
        state.tries.retain(|_, tries| !tries.is_empty());
        if is_right { Verdict::Right } else { Verdict::Wrong }
    }

    /// Begins a session, and returns its id.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn begin(&self, now: Duration) -> io::Result<String> {
        let id = random()?;
        let mut state = self.state.lock();
        if state.sessions.len() >= MOST_SESSIONS {
            state.sessions.pop_front();
        }
        state.sessions.push_back((hash(&id), now + SESSION));
        Ok(id)
    }

    /// Is there such a session?
    pub fn is_open(&self, id: &str, now: Duration) -> bool {
        let mut state = self.state.lock();
        state.sessions.retain(|(_, until)| *until > now);
        let id = hash(id);
        // All are looked at, and none by its first bytes.
        state.sessions.iter().filter(|(known, _)| verify_slices_are_equal(known, &id).is_ok()).count() > 0
    }

    /// Ends a session.
    pub fn end(&self, id: &str) {
        let id = hash(id);
        self.state.lock().sessions.retain(|(known, _)| *known != id);
    }
}

fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn wrong_tokens_are_limited_by_address_and_time() {
        let sessions = Sessions::new("the token that is right");
        assert_eq!(sessions.check("the token that is right", HERE, at(0)), Verdict::Right);
        for _ in 0..MOST_TRIES {
            assert_eq!(sessions.check("wrong", HERE, at(1)), Verdict::Wrong);
        }
        assert_eq!(sessions.check("the token that is right", HERE, at(2)), Verdict::TooMany);
        let elsewhere = IpAddr::from([127, 0, 0, 2]);
        assert_eq!(sessions.check("the token that is right", elsewhere, at(2)), Verdict::Right);
        assert_eq!(sessions.check("the token that is right", HERE, at(61)), Verdict::Right);
    }

    #[test]
    fn addresses_that_are_remembered_are_bounded() {
        let sessions = Sessions::new("the token that is right");
        for number in 0..2000_u32 {
            sessions.check("wrong", IpAddr::from(number.to_be_bytes()), at(1));
        }
        assert!(sessions.state.lock().tries.len() <= MOST_ADDRESSES + 1);
        assert_eq!(sessions.check("the token that is right", IpAddr::from([9, 9, 9, 9]), at(1)), Verdict::TooMany);
        assert_eq!(
            sessions.check("wrong", IpAddr::from([9, 9, 9, 9]), at(61)),
            Verdict::Wrong,
            "the old ones are gone"
        );
        assert_eq!(sessions.state.lock().tries.len(), 1);
    }

    #[test]
    fn sessions_end_by_time_by_number_and_by_will() {
        let sessions = Sessions::new("token");
        let first = sessions.begin(at(0)).unwrap();
        assert!(sessions.is_open(&first, at(10)) && !sessions.is_open("guess", at(10)));
        assert!(!sessions.is_open(&first, SESSION));
        let first = sessions.begin(at(0)).unwrap();
        let others: Vec<_> = (0..MOST_SESSIONS).map(|_| sessions.begin(at(0)).unwrap()).collect();
        assert!(!sessions.is_open(&first, at(1)) && sessions.is_open(&others[0], at(1)));
        sessions.end(&others[0]);
        assert!(!sessions.is_open(&others[0], at(1)));
    }
}
