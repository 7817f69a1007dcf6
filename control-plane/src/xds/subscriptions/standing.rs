//! What a client has said about what it was sent: accepted, refused, nothing yet.

use std::{sync::Arc, time::SystemTime};

use super::{Sent, Subscriptions};
use crate::xds::{
    catalog::{Catalog, Lookup, Viewer},
    kind::Kind,
};

/// The longest words of a client about one resource that are kept, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// One name: what was sent under it, and what the client said.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) sent: Sent,
    /// The response that it was sent in; 0: in none of this stream.
    nonce: u64,
    /// When it was answered for, else when it was sent for the first time since.
    at: Option<SystemTime>,
    is_answered: bool,
    accepted: Option<Arc<str>>,
    refused: Option<Arc<Refused>>,
}

/// A version that a client does not want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub version: Arc<str>,
    /// The client's words.
    pub detail: String,
    /// When it said so.
    pub at: SystemTime,
}

/// How one resource of one client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The newest version. `None`: there is no such resource, for this client.
    pub newest: Option<Arc<str>>,
    /// The version that the client has accepted last. `None`: none.
    pub accepted: Option<Arc<str>>,
    /// The newest one that was sent, if the client refused that.
    pub refused: Option<Arc<Refused>>,
    /// When it was answered for; else since when it waits for that.
    pub at: Option<SystemTime>,
}

impl Standing {
    /// Has the client accepted the newest version, or is there none?
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.newest == self.accepted
    }
}

impl Held {
    pub(super) const fn new(sent: Sent) -> Self {
        Self { sent, nonce: 0, at: None, is_answered: true, accepted: None, refused: None }
    }

    /// The client has it from an earlier stream.
    pub(super) fn accepted(version: Arc<str>) -> Self {
        Self { accepted: Some(Arc::clone(&version)), ..Self::new(Sent::Version(version)) }
    }

    fn answer(&mut self, name: &str, refusal: Option<&Refusal<'_>>, now: Option<SystemTime>) {
        self.at = now;
        self.is_answered = true;
        let sent = match &self.sent {
            Sent::Version(version) => Some(Arc::clone(version)),
            Sent::Absent => None,
            Sent::Never => return,
        };
        match (refusal.filter(|refusal| refusal.concerns(name)), sent) {
            (Some(refusal), Some(version)) => {
                let at = now.unwrap_or(SystemTime::UNIX_EPOCH);
                self.refused = Some(Arc::new(Refused { version, detail: refusal.about(name), at }));
            }
            (_, sent) => {
                self.accepted = sent;
                self.refused = None;
            }
        }
    }
}

/// A client's words about a response. It may name the resources that are wrong; the others are then accepted.
struct Refusal<'a> {
    detail: &'a str,
    names_some: bool,
}

impl Refusal<'_> {
    fn concerns(&self, name: &str) -> bool {
        !self.names_some || mentions(self.detail, name)
    }

    /// What it says of `name`: from its name to the next part.
    fn about(&self, name: &str) -> String {
        let part = self.detail.split("; ").find(|part| part.starts_with(name)).unwrap_or(self.detail);
        part.chars().take(MAX_DETAIL_CHARS).collect()
    }
}

/// Does a text hold this name, and not as a part of a longer one? Clients may cut names after 128 characters.
fn mentions(text: &str, name: &str) -> bool {
    let end = name.char_indices().nth(128).map_or(name.len(), |(at, _)| at);
    let name = name.get(..end).unwrap_or(name);
    let goes_on = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/');
    text.match_indices(name).any(|(at, found)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let mut after = text.get(at + found.len()..).unwrap_or_default().chars();
        let follows = after.next().is_some_and(|letter| letter.is_alphanumeric() || letter == '-');
        !before.is_some_and(goes_on) && !follows
    })
}

impl Subscriptions {
    /// Says what time it is, for what happens next.
    pub fn handle_time(&mut self, now: SystemTime) {
        self.now = Some(now);
    }

    /// The response `nonce` was made, with these resources, and names that are gone.
    pub fn offered<'a>(&mut self, kind: Kind, nonce: u64, names: impl IntoIterator<Item = &'a str>) {
        let now = self.now;
        let state = self.kinds.get_mut(kind);
        for name in names {
            if let Some(held) = state.sent.get_mut(name) {
                held.nonce = nonce;
                if std::mem::replace(&mut held.is_answered, false) {
                    held.at = now;
                }
            }
        }
    }

    /// The client answered the response `nonce`: with words when it refuses it.
    pub fn answered(&mut self, kind: Kind, nonce: u64, detail: Option<&str>) {
        let now = self.now;
        let state = self.kinds.get_mut(kind);
        let of_it = |held: &Held| held.nonce == nonce;
        let refusal = detail.map(|detail| Refusal {
            detail,
            names_some: state.sent.iter().any(|(name, held)| of_it(held) && mentions(detail, name)),
        });
        for (name, held) in state.sent.iter_mut().filter(|(_, held)| of_it(held)) {
            held.answer(name, refusal.as_ref(), now);
        }
    }

    /// Is the newest that was sent refused, of anything that is asked for?
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kinds.iter().any(|(_, state)| state.sent.values().any(|held| held.refused.is_some()))
    }

    /// How everything stands that was asked for.
    #[must_use]
    pub fn standings(&self, catalog: &Catalog, viewer: &Viewer) -> Vec<Standing> {
        let all = self.kinds.iter().flat_map(|(kind, state)| state.sent.iter().map(move |held| (kind, held)));
        all.map(|(kind, (name, held))| Standing {
            kind,
            name: name.clone(),
            newest: match catalog.find(kind, name, viewer) {
                Lookup::Found(found) => Some(Arc::clone(found.version())),
                Lookup::Missing | Lookup::Refused(_) => None,
            },
            accepted: held.accepted.clone(),
            refused: held.refused.clone(),
            at: held.at,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_found_inside_a_longer_one() {
        for (text, is_there) in [
            ("a.shop:80: no", true),
            ("x; a.shop:80: no", true),
            ("[a.shop:80]", true),
            ("a.shop:8080: no", false),
            ("aa.shop:80: no", false),
            ("b-a.shop:80: no", false),
            ("", false),
        ] {
            assert_eq!(mentions(text, "a.shop:80"), is_there, "{text}");
        }
    }
}
