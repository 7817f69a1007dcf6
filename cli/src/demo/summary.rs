//! What the demo says at the end, and whether it showed what it promises.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{edges::Row, load::Tally};

/// How far a measured split may be off, in percentage points, however many requests there were.
const SPLIT_TOLERANCE: f64 = 10.0;
/// After the loss of an instance was noticed, the time until every sidecar must know.
const SPREADING: Duration = Duration::from_secs(2);

/// The summary, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// Requests of the customers.
    pub(super) requests: u64,
    /// Those of them that failed.
    pub(super) failed: u64,
    /// Every edge over the whole time.
    pub(super) edges: Vec<Row>,
    /// Percent of payment by version before the edit.
    pub(super) split_before: BTreeMap<String, f64>,
    /// Percent of payment by version after the edit.
    pub(super) split_after: BTreeMap<String, f64>,
}

/// The accident.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accident {
    /// When the instance was killed.
    pub(super) killed: Instant,
    /// When that was noticed and the instance taken out.
    pub(super) noticed: Instant,
}

impl Accident {
    /// Whether a failure at this time is explained by it.
    fn explains(&self, failed: Instant) -> bool {
        (self.killed..=self.noticed + SPREADING).contains(&failed)
    }
}

/// Everything that is not as it should be.
pub(super) fn complaints(summary: &Summary, tally: &Tally, expected: [u32; 2], accident: &Accident) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, why) in tally.failures.iter().filter(|(at, _)| !accident.explains(*at)).take(5) {
        let after = at.saturating_duration_since(accident.killed);
        complaints.push(format!("a request failed {:.1} s after the kill or before it: {why}", after.as_secs_f64()));
    }
    for edge in &summary.edges {
        let name = format!("{} -> {}", edge.from, edge.to);
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{}", edge.to);
        if edge.requests == 0 {
            complaints.push(format!("{name}: no request was counted"));
        } else if !edge.mtls {
            complaints.push(format!("{name}: not all requests went over mutual TLS"));
        } else if edge.peer != identity {
            complaints.push(format!("{name}: the peer was {:?} and not {identity}", edge.peer));
        }
    }
    let measured = [("before", &summary.split_before), ("after", &summary.split_after)];
    for ((when, split), expected) in measured.into_iter().zip(expected) {
        let share = split.get("v1").copied().unwrap_or(0.0);
        if (share - f64::from(expected)).abs() > SPLIT_TOLERANCE {
            complaints.push(format!("{when} the edit, v1 got {share:.1} % and not about {expected} %"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let edge = Row {
            from: "shopper",
            to: "web",
            requests: 10,
            failed: 0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            peer: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            mtls: true,
        };
        Summary {
            requests: 10,
            failed: 0,
            edges: vec![edge],
            split_before: BTreeMap::from([("v1".to_owned(), 88.0)]),
            split_after: BTreeMap::from([("v1".to_owned(), 52.0)]),
        }
    }

    #[test]
    fn only_failures_near_the_accident_are_excused() {
        let killed = Instant::now() + Duration::from_secs(10);
        let accident = Accident { killed, noticed: killed + Duration::from_millis(100) };
        let mut tally = Tally::default();
        tally.failures.push((killed + Duration::from_millis(500), "excused".to_owned()));
        assert_eq!(complaints(&summary(), &tally, [90, 50], &accident), Vec::<String>::new());
        tally.failures.push((killed - Duration::from_secs(1), "before".to_owned()));
        tally.failures.push((killed + Duration::from_secs(3), "long after".to_owned()));
        assert_eq!(complaints(&summary(), &tally, [90, 50], &accident).len(), 2);
    }

    #[test]
    fn a_wrong_peer_plaintext_and_a_wrong_split_are_complaints() {
        let now = Instant::now();
        let accident = Accident { killed: now, noticed: now };
        let mut bad = summary();
        bad.edges[0].peer = "spiffe://cluster.local/ns/shop/sa/mallory".to_owned();
        let mut plain = bad.edges[0].clone();
        plain.mtls = false;
        bad.edges.push(plain);
        bad.split_after = BTreeMap::from([("v1".to_owned(), 89.0)]);
        assert_eq!(complaints(&bad, &Tally::default(), [90, 50], &accident).len(), 3);
    }
}
