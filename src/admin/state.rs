//! `/state`: all that `pillion ps` wants to know of a sidecar.

use std::time::{SystemTime, UNIX_EPOCH};

use pillion_wire::observe::{Certificate, Rejected, State};

use super::{Admin, memory};
use crate::identity::Identity;

pub(super) fn state(admin: &Admin) -> State {
    let shared = &admin.shared;
    let settings = &shared.settings;
    let (ready, why) = match admin.readiness.check() {
        Ok(remark) => (true, remark.trim_start_matches([',', ' ']).to_owned()),
        Err(missing) => (false, missing),
    };
    let clusters = shared.clusters();
    let identity = shared.identity.load();
    State {
        namespace: settings.id.namespace().to_owned(),
        workload: settings.workload.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: seconds(admin.started),
        ready,
        draining: shared.drain.is_stopping(),
        why,
        certificate: identity.as_ref().as_ref().map(certificate),
        rejected: rejected(admin),
        clusters: clusters.len(),
        endpoints: clusters.iter().map(|cluster| cluster.upstream.members().len()).sum(),
        connections: shared.drain.tasks(),
        memory: memory::resident(),
        workers: settings.workers.get(),
        admin: settings.admin.to_string(),
    }
}

fn certificate(identity: &Identity) -> Certificate {
    Certificate {
        id: identity.id.to_string(),
        not_before: seconds(identity.not_before),
        not_after: seconds(identity.not_after),
    }
}

fn rejected(admin: &Admin) -> Vec<Rejected> {
    let entries = admin.ledger.entries().into_iter();
    let rejected = entries.filter_map(|((kind, name), entry)| {
        let refused = entry.refused?;
        let at = entry.at.map_or(0, seconds);
        Some(Rejected { kind: kind.label().to_owned(), name, version: refused.version, detail: refused.detail, at })
    });
    rejected.collect()
}

/// Since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
