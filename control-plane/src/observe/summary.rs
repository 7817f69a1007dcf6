//! What each client of the control plane runs, for `pillion ps`.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, stream};
use pillion_wire::observe::{Configuration, Rejected, Summary};
use tokio::time::timeout;

use super::hub::{AskError, Sidecars};
use crate::xds::{
    catalog::Catalog,
    dialect::Dialect,
    nodes::{Connected, Nodes},
    subscriptions::Standing,
};

/// Sidecars that are asked at the same time.
const AT_ONCE: usize = 64;
/// How long each may take.
const STATE: Duration = Duration::from_secs(2);

/// All that are connected, and workloads whose sidecar is not; or the one with this name.
pub(super) async fn all(
    nodes: &Nodes,
    sidecars: &Arc<Sidecars>,
    catalog: &Catalog,
    only: Option<&str>,
) -> Vec<Summary> {
    let connected = nodes.connected();
    let absent = absent(&connected, catalog);
    let is_wanted = |name: &str| only.is_none_or(|only| only == name);
    let asked = connected.into_iter().filter(|one| is_wanted(&one.who.node)).map(|connected| {
        let sidecars = Arc::clone(sidecars);
        async move { summary(&connected, &sidecars).await }
    });
    let mut all: Vec<Summary> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    all.extend(absent.into_iter().filter(|one| is_wanted(&one.name)));
    all.sort_by(|one, other| (&one.name, &one.identity).cmp(&(&other.name, &other.identity)));
    all
}

/// Workloads that should have a sidecar, and for which nobody is connected: neither it nor, with the same identity, an
/// xDS client of another kind.
fn absent(connected: &[Connected], catalog: &Catalog) -> Vec<Summary> {
    let known: HashSet<&str> = connected.iter().map(|one| one.who.node.as_str()).collect();
    let others = connected.iter().filter(|one| one.who.dialect != Dialect::Pillion.name());
    let others: HashSet<&str> = others.filter_map(|one| Some(one.who.identity.split_once("/ns/")?.1)).collect();
    let workloads = catalog.mesh().workloads().map(|workload| {
        let (namespace, account) = (&workload.name.namespace, &workload.service_account);
        (format!("{namespace}/{}", workload.name.name), format!("{namespace}/sa/{account}"))
    });
    let absent =
        workloads.filter(|(name, account)| !known.contains(name.as_str()) && !others.contains(account.as_str()));
    let summary = |(name, _)| Summary {
        name,
        dialect: Dialect::Pillion.name().to_owned(),
        silent: "its sidecar is not connected".to_owned(),
        ..Summary::default()
    };
    absent.map(summary).collect()
}

async fn summary(connected: &Connected, sidecars: &Sidecars) -> Summary {
    let who = &connected.who;
    let state = async {
        let (namespace, name) = who.node.split_once('/').filter(|_| who.dialect == Dialect::Pillion.name())?;
        Some(
            timeout(STATE, sidecars.page(namespace, name, "/state", "")).await.unwrap_or(Err(AskError::Timeout(STATE))),
        )
    };
    let (answer, state) = tokio::join!(connected.ask(), state);
    let mut summary = Summary {
        name: who.node.clone(),
        dialect: who.dialect.to_owned(),
        identity: who.identity.clone(),
        version: who.version.clone(),
        address: who.address.map(|address| address.to_string()).unwrap_or_default(),
        connected: seconds(connected.since),
        configuration: configuration(&answer.map(|answer| answer.standings).unwrap_or_default()),
        ..Summary::default()
    };
    match state.map(|page| page.and_then(|page| parse(&page.bytes))) {
        Some(Ok(state)) => summary.state = Some(state),
        Some(Err(error)) => summary.silent = error.to_string(),
        None => {}
    }
    summary
}

fn parse(bytes: &[u8]) -> Result<pillion_wire::observe::State, AskError> {
    serde_json::from_slice(bytes).map_err(|error| AskError::Refused(error.to_string()))
}

/// All that a client asks for against the newest.
pub(super) fn configuration(standings: &[Standing]) -> Configuration {
    let behind: Vec<&Standing> = standings.iter().filter(|standing| !standing.is_in_sync()).collect();
    let rejected: Vec<Rejected> = standings.iter().filter_map(rejected).collect();
    let since = behind.iter().filter_map(|standing| standing.at).min();
    let state = match (behind.is_empty(), rejected.is_empty()) {
        (_, false) => "rejected",
        (false, true) => "behind",
        (true, true) => "in sync",
    };
    let hash = |version: fn(&Standing) -> &Option<Arc<str>>| {
        // Of this process only: both sides of a comparison are made by it, from versions that are the same everywhere.
        let mut hasher = DefaultHasher::new();
        for standing in standings {
            (standing.kind, &standing.name, version(standing)).hash(&mut hasher);
        }
        format!("{:08x}", hasher.finish() >> 32)
    };
    Configuration {
        state: state.to_owned(),
        version: hash(|standing| &standing.accepted),
        newest: hash(|standing| &standing.newest),
        resources: standings.len(),
        behind: behind.len(),
        since: since.map_or(0, seconds),
        rejected,
    }
}

/// What was refused, while that is the newest.
fn rejected(standing: &Standing) -> Option<Rejected> {
    let refused = standing.refused.as_ref().filter(|_| !standing.is_in_sync())?;
    Some(Rejected {
        kind: standing.kind.name().to_owned(),
        name: standing.name.clone(),
        version: refused.version.to_string(),
        detail: refused.detail.clone(),
        at: seconds(refused.at),
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
