//! The processes in a network namespace, found in `/proc`, and their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};
use tokio::time::Instant;

/// How often is looked whether they have ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How long killed processes may take to be gone; longer only when the kernel holds them up.
const KILLED: Duration = Duration::from_secs(5);

/// A namespace as `/proc` names it. The number is its own for as long as somebody holds the file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamespaceId(u64, u64);

impl NamespaceId {
    /// Of an open namespace.
    pub(super) fn of(namespace: &OwnedFd) -> std::io::Result<Self> {
        let is = File::from(namespace.try_clone()?).metadata()?;
        Ok(Self(is.dev(), is.ino()))
    }
}

/// Ends all processes in the namespace: SIGTERM, time, SIGKILL. Without time SIGKILL at once.
pub(super) fn end(namespace: NamespaceId, grace: Duration) {
    if !grace.is_zero() {
        until_gone(namespace, Signal::SIGTERM, grace, true);
    }
    until_gone(namespace, Signal::SIGKILL, KILLED, false);
}

/// Sends the signal to each, also to those that are started meanwhile, until there are none or the time is over.
fn until_gone(namespace: NamespaceId, signal: Signal, time: Duration, once: bool) {
    let deadline = Instant::now() + time;
    let mut told = BTreeSet::new();
    loop {
        let inside = inside(namespace);
        if inside.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in inside {
            if told.insert(pid) || !once {
                // It may have ended by itself.
                let _gone = kill(Pid::from_raw(pid), signal);
            }
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// The processes whose network is this namespace, and their descendants, which may have gone into another.
fn inside(namespace: NamespaceId) -> BTreeSet<i32> {
    let parents: BTreeMap<i32, i32> = pids().filter_map(|pid| Some((pid, parent_if_alive(pid)?))).collect();
    let is_in = |pid: i32| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|is| NamespaceId(is.dev(), is.ino()) == namespace)
    };
    let mut found: BTreeSet<i32> = parents.keys().copied().filter(|pid| is_in(*pid)).collect();
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&getpid().as_raw());
            return found;
        }
        found.extend(more);
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` after the name, which is in parentheses and may hold some: state, parent.
fn parent_if_alive(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}
