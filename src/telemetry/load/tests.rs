use super::*;
use crate::bootstrap;
use crate::telemetry::{AccessLog, Metrics, Recorder, Telemetry};

fn recorder() -> (Arc<Recorder>, Arc<Load>) {
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
    let load = Arc::new(Load::new(true));
    let telemetry = Telemetry { load: Arc::clone(&load), ..Telemetry::new(metrics, access_log) };
    (Arc::new(Recorder::new(telemetry)), load)
}

fn record(recorder: &Arc<Recorder>, cluster: &str, status: u16) -> Record {
    let mut record = Record::begin(recorder, "outbound", ([127, 0, 0, 1], 1).into());
    (record.cluster, record.status, record.attempts) = (Arc::from(cluster), status, 1);
    record
}

#[test]
fn how_requests_end_is_told_apart() {
    let (recorder, load) = recorder();
    drop(record(&recorder, "a", 200));
    drop(record(&recorder, "a", 404));
    drop(record(&recorder, "a", 503));
    let mut grpc = record(&recorder, "a", 200);
    grpc.is_grpc = true;
    grpc.grpc_status = Some(14);
    drop(grpc);
    let mut gone = record(&recorder, "a", 0);
    gone.attempts = 0;
    drop(gone);
    let mut open = record(&recorder, "a", 503);
    open.attempts = 0;
    open.fail("breaker_open", "UO", String::new());
    drop(open);
    let mut edges = Edges::default();
    load.take(&mut edges);
    let (edge, counts) = edges.iter().next().unwrap();
    assert_eq!(&*edge.cluster, "a");
    assert_eq!((counts.success, counts.error, counts.cancelled), (2, 2, 1));
    assert_eq!(counts.dropped, [("breaker_open", 1)]);
    assert_eq!(counts.buckets.iter().sum::<u64>(), 4);
    assert_eq!(counts.classes, [0, 2, 0, 1, 2]);
    let mut again = Edges::default();
    load.take(&mut again);
    assert!(again.is_empty(), "what was taken is gone");
}

#[test]
fn edges_beyond_the_bound_are_counted_together() {
    let (recorder, load) = recorder();
    for number in 0..2 * MOST_EDGES {
        drop(record(&recorder, &format!("cluster-{number}"), 200));
    }
    let mut edges = Edges::default();
    load.take(&mut edges);
    assert!(edges.iter().count() <= MOST_EDGES + 2);
    assert_eq!(edges.iter().map(|(_, counts)| counts.success).sum::<u64>(), 2 * MOST_EDGES as u64);
}

#[test]
fn bytes_of_an_open_connection_are_told_as_they_pass() {
    let (recorder, load) = recorder();
    let mut record = record(&recorder, "db", 0);
    record.is_tcp = true;
    let flow = record.open_flow().unwrap();
    for (total, told) in [(10, 10), (25, 15), (25, 0)] {
        flow.set(total, 0);
        let mut edges = Edges::default();
        load.take(&mut edges);
        assert_eq!(edges.iter().map(|(_, counts)| counts.tcp_received).sum::<u64>(), told);
    }
    drop((flow, record));
    let mut edges = Edges::default();
    load.take(&mut edges);
    assert_eq!(edges.iter().map(|(_, counts)| counts.tcp_closed).sum::<u64>(), 1);
}

#[test]
fn connections_that_ended_are_forgotten_though_nobody_reports() {
    let (recorder, load) = recorder();
    for _ in 0..1000 {
        let mut record = record(&recorder, "db", 0);
        record.is_tcp = true;
        let flow = record.open_flow().unwrap();
        flow.set(3, 4);
    }
    assert_eq!(recorder.load.as_ref().unwrap().0.lock().flows.len(), 0);
    let mut edges = Edges::default();
    load.take(&mut edges);
    let sum = |of: fn(&Counts) -> u64| edges.iter().map(|(_, counts)| of(counts)).sum::<u64>();
    assert_eq!((sum(|counts| counts.tcp_received), sum(|counts| counts.tcp_sent)), (3000, 4000));
    assert_eq!((sum(|counts| counts.tcp_opened), sum(|counts| counts.tcp_closed)), (1000, 1000));
}
