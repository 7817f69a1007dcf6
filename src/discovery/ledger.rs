//! How each resource stands that was asked for: for CSDS and for whoever wants to know what was refused.

use std::collections::BTreeMap;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Kind;

/// Longest reason that is kept, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// All resources that we ask for. Shared; its lock is held for a few instructions by the writer, for a copy by readers.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<BTreeMap<(Kind, String), Entry>>,
}

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The version in force. `None`: none.
    pub version: Option<String>,
    /// Does the control plane say that there is none?
    pub is_missing: bool,
    /// The last version that came, if we refused that.
    pub refused: Option<Refused>,
    /// When something came last.
    pub at: Option<SystemTime>,
}

/// A version that we do not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub version: String,
    /// What is wrong with it, with the path of the field.
    pub detail: String,
}

impl Ledger {
    /// All of it now.
    pub fn entries(&self) -> BTreeMap<(Kind, String), Entry> {
        self.entries.lock().clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Is nothing asked for?
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    pub(super) fn asked(&self, kind: Kind, name: &str) {
        self.entries.lock().entry((kind, name.to_owned())).or_default();
    }

    pub(super) fn given_up(&self, kind: Kind, name: &str) {
        self.entries.lock().remove(&(kind, name.to_owned()));
    }

    pub(super) fn accepted(&self, kind: Kind, name: &str, version: String, now: SystemTime) {
        self.change(kind, name, |entry| {
            *entry = Entry { version: Some(version), at: Some(now), ..Entry::default() };
        });
    }

    pub(super) fn refused(&self, kind: Kind, name: &str, version: String, detail: &str, now: SystemTime) {
        let detail = detail.chars().take(MAX_DETAIL_CHARS).collect();
        self.change(kind, name, |entry| {
            entry.refused = Some(Refused { version, detail });
            entry.at = Some(now);
        });
    }

    pub(super) fn removed(&self, kind: Kind, name: &str, now: SystemTime) {
        self.change(kind, name, |entry| *entry = Entry { is_missing: true, at: Some(now), ..Entry::default() });
    }

    /// Only of what is asked for: a peer cannot make it grow.
    fn change(&self, kind: Kind, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.lock().get_mut(&(kind, name.to_owned())) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_leaves_what_is_in_force() {
        let (ledger, now) = (Ledger::default(), SystemTime::UNIX_EPOCH);
        ledger.accepted(Kind::Route, "a", "1".to_owned(), now);
        assert!(ledger.is_empty(), "it was not asked for");
        ledger.asked(Kind::Route, "a");
        ledger.accepted(Kind::Route, "a", "1".to_owned(), now);
        ledger.refused(Kind::Route, "a", "2".to_owned(), "no", now);
        let entry = ledger.entries()[&(Kind::Route, "a".to_owned())].clone();
        assert_eq!(entry.version.as_deref(), Some("1"));
        assert_eq!(entry.refused, Some(Refused { version: "2".to_owned(), detail: "no".to_owned() }));
        ledger.removed(Kind::Route, "a", now);
        let entry = ledger.entries()[&(Kind::Route, "a".to_owned())].clone();
        assert!(entry.is_missing && entry.version.is_none() && entry.refused.is_none());
        ledger.given_up(Kind::Route, "a");
        assert!(ledger.is_empty());
    }
}
