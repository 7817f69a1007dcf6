//! Is the application still there? What it needs to reach others stays open until it has gone.
//!
//! When a workload is stopped, its application and its sidecar may be told so at the same moment. An application that
//! finishes its work may still have to call others, so interception of its calls ends last.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bootstrap::Intercept;

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks in a row that must find nothing.
const LOOKS: u32 = 5;
/// In `/proc/net/tcp` (Linux `include/net/tcp_states.h`): the kernel alone still holds such a connection.
const TIME_WAIT: &str = "06";

/// Waits until nothing of the application can be seen any more: no other process in its network namespace, and no
/// TCP socket there that is not ours. A process in a PID namespace that we cannot see is known by its sockets alone.
///
/// # Cancel safety
/// Nothing is lost.
pub(crate) async fn gone(intercept: &Intercept) {
    let namespace = intercept.namespace.clone();
    // A namespace that is not ours is the application's alone: nobody comes and goes there between two looks.
    let looks = if namespace.is_some() { 1 } else { LOOKS };
    let mut quiet = 0;
    while quiet < looks {
        let namespace = namespace.clone();
        let look = move || is_there(namespace.as_deref());
        let seen = tokio::task::spawn_blocking(look).await.unwrap_or(false);
        quiet = if seen { 0 } else { quiet + 1 };
        if quiet < looks {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn is_there(namespace: Option<&Path>) -> bool {
    match namespace {
        // All sockets there are ours or the application's, and those of a process that is gone are gone.
        Some(namespace) => has_processes(namespace, "ns/net"),
        // The table itself tells namespaces apart: who may not look into another user's process may still see that.
        None => has_processes(Path::new("/proc/self/net/tcp"), "net/tcp") || has_sockets(),
    }
}

/// Another process whose `file` in `/proc/PID` is this one of a network namespace. The process that only holds a pod's
/// namespaces together does not count, nor does what started us (an init, a shell).
fn has_processes(namespace: &Path, file: &str) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let Some(wanted) = identity(namespace) else { return false };
    let ours: Vec<u32> = std::iter::successors(Some(std::process::id()), |process| parent(*process)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).any(|process| {
        let folder = PathBuf::from(format!("/proc/{process}"));
        let is_pause = || fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == "pause");
        !ours.contains(&process) && identity(&folder.join(file)) == Some(wanted) && !is_pause()
    })
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok().filter(|parent| *parent > 0)
}

fn has_sockets() -> bool {
    let ours: HashSet<String> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            fs::read_link(entry.path()).ok()?.to_str()?.strip_prefix("socket:[")?.split(']').next().map(str::to_owned)
        })
        .collect();
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].into_iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(3);
            let (state, inode) = (fields.next(), fields.nth(5));
            // The kernel's own, such as those of a connection that is being closed, have no inode.
            state != Some(TIME_WAIT) && inode.is_some_and(|inode| inode != "0" && !ours.contains(inode))
        })
    })
}
