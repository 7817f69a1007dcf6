//! What one stream has asked for, and what it was sent of it.
//!
//! Both variants of the protocol share this: a request changes the set of names,
//! a new catalog makes it dirty, and [`Subscriptions::changes`] says what differs
//! between what the client holds and what it should hold. Nothing is queued:
//! however many catalogs went by, the difference is to the newest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use pillion_wire::xds::Any;

use super::{
    catalog::{Catalog, Lookup, Viewer},
    kind::{Kind, PerKind},
};
use crate::core::service::Name;

mod standing;

use standing::Held;
pub use standing::{Refused, Standing};

/// The most names that one stream may ask for, over all kinds: what the 4,096 destinations that a sidecar may hold refer to.
pub const MAX_NAMES: usize = 20_000;

/// The longest name, in bytes: a host name, a port and room to spare.
pub const MAX_NAME_BYTES: usize = 1024;

/// About how many bytes of resources go into one response; clients of tonic and
/// gRPC refuse messages over 4 MiB unless told otherwise.
const RESPONSE_BYTES: usize = 2 << 20;

/// The name that stands for everything (xDS protocol, "Wildcard").
const WILDCARD: &str = "*";

/// A stream that asks for too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Too many names.
    #[error("more than {MAX_NAMES} names on one stream")]
    TooMany,
    /// A name that is too long.
    #[error("a name of more than {MAX_NAME_BYTES} bytes")]
    TooLong,
}

/// What a stream asked for, per kind.
#[derive(Debug, Default)]
pub struct Subscriptions {
    kinds: PerKind<State>,
    /// The time, as it was said last.
    now: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct State {
    /// Names asked for by name.
    names: BTreeSet<String>,
    /// Everything was asked for.
    wildcard: bool,
    /// What the client holds, by name.
    sent: BTreeMap<String, Held>,
    /// There may be something to send.
    dirty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    /// Nothing yet, or it wants it again.
    Never,
    /// This version.
    Version(Arc<str>),
    /// That there is no such resource.
    Absent,
}

/// A resource to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Arc<str>,
    /// The resource.
    pub body: Any,
}

/// The difference between what a client holds and what it should hold.
#[derive(Debug, Default)]
pub struct Changes {
    /// New or changed resources.
    pub resources: Vec<Outgoing>,
    /// Names under which there is nothing, or nothing any more.
    pub removed: Vec<String>,
    /// Names under which there is something for others only, and its owner.
    pub refused: Vec<(String, Name)>,
}

impl Changes {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

impl Subscriptions {
    /// Adds names; a name that is there already is sent again (xDS protocol,
    /// "Subscribing to Resources").
    ///
    /// # Errors
    ///
    /// When the stream asks for too much; nothing is added then.
    pub fn subscribe(&mut self, kind: Kind, names: Vec<String>) -> Result<(), SubscribeError> {
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(SubscribeError::TooLong);
        }
        let known = self.count();
        let state = self.kinds.get_mut(kind);
        let added: BTreeSet<&String> = names.iter().filter(|name| !state.names.contains(*name)).collect();
        if known + added.len() > MAX_NAMES {
            return Err(SubscribeError::TooMany);
        }
        for name in names {
            state.dirty = true;
            if name == WILDCARD {
                state.wildcard = true;
            } else {
                state.sent.insert(name.clone(), Held::new(Sent::Never));
                state.names.insert(name);
            }
        }
        Ok(())
    }

    /// Takes names away; the client forgets them by itself.
    pub fn unsubscribe(&mut self, kind: Kind, names: &[String]) {
        let state = self.kinds.get_mut(kind);
        for name in names {
            if name == WILDCARD {
                state.wildcard = false;
            } else {
                state.names.remove(name);
            }
            if !state.wildcard {
                state.sent.remove(name);
            }
        }
        if !state.wildcard {
            state.sent.retain(|name, _| state.names.contains(name));
        }
        // A name may still be part of everything, and is then sent again.
        state.dirty = state.dirty || state.wildcard;
    }

    /// Asks for everything of `kind`.
    pub fn subscribe_all(&mut self, kind: Kind) {
        let state = self.kinds.get_mut(kind);
        state.wildcard = true;
        state.dirty = true;
    }

    /// Makes `names` all that is asked for by name. Names that were there already
    /// are not sent again.
    ///
    /// # Errors
    ///
    /// When the stream asks for too much; nothing changes then.
    pub fn replace(&mut self, kind: Kind, names: Vec<String>) -> Result<(), SubscribeError> {
        let wanted: BTreeSet<String> = names.into_iter().collect();
        let state = self.kinds.get_mut(kind);
        let gone: Vec<String> = state.names.difference(&wanted).cloned().collect();
        let new: Vec<String> = wanted.difference(&state.names).cloned().collect();
        if state.wildcard && !wanted.contains(WILDCARD) {
            state.wildcard = false;
        }
        self.subscribe(kind, new)?;
        self.unsubscribe(kind, &gone);
        Ok(())
    }

    /// Notes what the client holds from an earlier stream. Only what it also asks
    /// for, or everything with a wildcard, is believed.
    pub fn holds(&mut self, kind: Kind, versions: impl IntoIterator<Item = (String, String)>) {
        let state = self.kinds.get_mut(kind);
        for (name, version) in versions {
            if name.len() > MAX_NAME_BYTES || state.sent.len() > MAX_NAMES {
                continue;
            }
            if state.wildcard || state.names.contains(&name) {
                state.sent.insert(name, Held::accepted(version.into()));
            }
        }
    }

    /// Makes the client be sent these again, if it asks for them.
    pub fn resend<'a>(&mut self, kind: Kind, names: impl IntoIterator<Item = &'a str>) {
        let state = self.kinds.get_mut(kind);
        for name in names {
            if let Some(held) = state.sent.get_mut(name) {
                held.sent = Sent::Never;
                state.dirty = true;
            }
        }
    }

    /// There is a new catalog.
    pub fn mark_changed(&mut self) {
        for kind in Kind::ALL {
            let state = self.kinds.get_mut(kind);
            state.dirty = state.wildcard || !state.names.is_empty();
        }
    }

    /// Whether everything of `kind` was asked for.
    #[must_use]
    pub fn is_wildcard(&self, kind: Kind) -> bool {
        self.kinds.get(kind).wildcard
    }

    /// How many names are asked for by name.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kinds.iter().map(|(_, state)| state.names.len()).sum()
    }

    /// What is to be sent of `kind` now, up to the size of one response. Until the
    /// answer is empty there may be more.
    pub fn changes(&mut self, kind: Kind, catalog: &Catalog, viewer: &Viewer) -> Changes {
        let state = self.kinds.get_mut(kind);
        let mut changes = Changes::default();
        if !state.dirty {
            return changes;
        }
        if state.wildcard {
            state.follow_wildcard(catalog.wildcard(kind, viewer), &mut changes);
        }
        let mut size = 0;
        for (name, held) in &mut state.sent {
            let sent = &mut held.sent;
            match catalog.find(kind, name, viewer) {
                Lookup::Found(found) => {
                    let version = Sent::Version(Arc::clone(found.version()));
                    if *sent == version {
                        continue;
                    }
                    if size > RESPONSE_BYTES {
                        return changes;
                    }
                    let body = found.body();
                    size += body.value.len() + name.len();
                    changes.resources.push(Outgoing { name: name.clone(), version: Arc::clone(found.version()), body });
                    *sent = version;
                }
                Lookup::Missing | Lookup::Refused(_) if *sent == Sent::Absent => {}
                Lookup::Missing => {
                    changes.removed.push(name.clone());
                    *sent = Sent::Absent;
                }
                Lookup::Refused(owner) => {
                    changes.removed.push(name.clone());
                    changes.refused.push((name.clone(), owner));
                    *sent = Sent::Absent;
                }
            }
        }
        state.dirty = false;
        changes
    }

    /// Everything of `kind` that the client should hold, whether it was sent or not.
    #[must_use]
    pub fn all(&mut self, kind: Kind, catalog: &Catalog, viewer: &Viewer) -> Vec<Outgoing> {
        self.kinds
            .get_mut(kind)
            .sent
            .keys()
            .filter_map(|name| match catalog.find(kind, name, viewer) {
                Lookup::Found(found) => {
                    Some(Outgoing { name: name.clone(), version: Arc::clone(found.version()), body: found.body() })
                }
                Lookup::Missing | Lookup::Refused(_) => None,
            })
            .collect()
    }
}

impl State {
    /// Takes in what is new under the wildcard and gives up what is gone.
    fn follow_wildcard(&mut self, existing: Vec<String>, changes: &mut Changes) {
        let existing: BTreeSet<String> = existing.into_iter().collect();
        self.sent.retain(|name, _| {
            let keep = existing.contains(name) || self.names.contains(name);
            if !keep {
                changes.removed.push(name.clone());
            }
            keep
        });
        for name in existing {
            self.sent.entry(name).or_insert_with(|| Held::new(Sent::Never));
        }
    }
}

#[cfg(test)]
mod tests;
