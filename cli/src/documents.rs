//! The Workloads of a folder of documents, followed as the control plane follows them: the same reader, the same last
//! good version of what is broken for a while.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use pillion_control_plane::{
    core::workload::Workload,
    document::Object,
    source::{Update, file::watch::Directory},
};
use tokio::sync::watch;

/// The Workloads in force.
pub(crate) type Workloads = Vec<Arc<Workload>>;

/// Reads a folder's Workloads, and again whenever they change.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn follow(folder: &Path) -> anyhow::Result<watch::Receiver<Workloads>> {
    let (directory, first) = Directory::open(folder)?;
    let (sender, receiver) = watch::channel(workloads(&first));
    let publish = move |update: Update| {
        let now = workloads(&update);
        sender.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        !sender.is_closed()
    };
    directory.watch(publish).context("cannot watch the folder")?;
    Ok(receiver)
}

fn workloads(update: &Update) -> Workloads {
    let objects = update.objects.values().map(|accepted| &accepted.object);
    let workloads = objects.filter_map(|object| match object {
        Object::Workload(workload) => Some(Arc::clone(workload)),
        _ => None,
    });
    workloads.collect()
}
