//! What the sidecar is, and what it takes of the machine.

use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use pillion_wire::exposition::{Family, Kind, Point, Text, Value};
use tokio::runtime::Handle;

use super::families::{family, labels, number};

/// Who we are.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Our workload.
    pub workload: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its SPIFFE id.
    pub identity: Arc<str>,
    /// Where it runs, when that was said.
    pub zone: Arc<str>,
    /// The cryptography in use: provider, and key exchanges by preference.
    pub tls: (&'static str, Arc<str>),
}

/// Build, identity and TLS, each a constant 1 with labels.
pub(super) fn of(us: &About) -> Vec<Family> {
    let info = |name, help, labels| family(name, help, Kind::Gauge, vec![Point { labels, value: Value::Number(1.0) }]);
    let (provider, key_exchange) = &us.tls;
    vec![
        info(
            "pillion_build_info",
            "What is running.",
            labels([
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("profile", if cfg!(debug_assertions) { "debug" } else { "release" }.into()),
                ("architecture", std::env::consts::ARCH.into()),
            ]),
        ),
        info(
            "pillion_workload_info",
            "Whose sidecar this is.",
            labels([
                ("workload", (&us.workload).into()),
                ("namespace", (&us.namespace).into()),
                ("identity", (&us.identity).into()),
                ("zone", (&us.zone).into()),
            ]),
        ),
        info(
            "pillion_tls_info",
            "Cryptography between sidecars, with key exchanges by preference.",
            labels([
                ("provider", (*provider).into()),
                ("version", "1.3".into()),
                ("key_exchange", key_exchange.into()),
            ]),
        ),
    ]
}

/// What the process takes, under the names of Prometheus' own client libraries; what cannot be read is left out.
pub(super) fn process(started: SystemTime) -> Vec<Family> {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
        let seconds = micros as f64 / 1e6;
        seconds
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
    };
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| number(entries.count() as u64));
    let most = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| number(soft));
    let value = |number: Option<f64>| number.map(Value::Number);
    let all = [
        ("process_cpu_seconds", "CPU time, of user and system.", Kind::Counter, value(cpu)),
        ("process_resident_memory_bytes", "Memory in use.", Kind::Gauge, value(bytes("VmRSS:"))),
        ("process_virtual_memory_bytes", "Address space in use.", Kind::Gauge, value(bytes("VmSize:"))),
        ("process_open_fds", "Open file descriptors.", Kind::Gauge, open),
        ("process_max_fds", "File descriptors that may be open.", Kind::Gauge, most),
        ("process_start_time_seconds", "When it started, as a Unix time.", Kind::Gauge, Some(Value::Number(since))),
    ];
    let point = |value| vec![Point { labels: Vec::new(), value }];
    all.into_iter().filter_map(|(name, help, kind, value)| Some(family(name, help, kind, point(value?)))).collect()
}

/// How busy the threads of each runtime are.
pub(super) fn runtimes(all: &[(Arc<str>, Handle)]) -> Vec<Family> {
    let points = |read: fn(&Handle) -> Value| -> Vec<Point> {
        let each = all.iter();
        each.map(|(name, handle)| Point { labels: labels([("runtime", Text::from(name))]), value: read(handle) })
            .collect()
    };
    vec![
        family(
            "pillion_runtime_threads",
            "Threads of each runtime: worker-N carry traffic, control all else.",
            Kind::Gauge,
            points(|handle| number(handle.metrics().num_workers() as u64)),
        ),
        family(
            "pillion_runtime_tasks",
            "Tasks that are alive.",
            Kind::Gauge,
            points(|handle| number(handle.metrics().num_alive_tasks() as u64)),
        ),
        family(
            "pillion_runtime_queued_tasks",
            "Tasks that wait for their turn and came from another thread.",
            Kind::Gauge,
            points(|handle| number(handle.metrics().global_queue_depth() as u64)),
        ),
        family(
            "pillion_runtime_busy_seconds",
            "Time in which threads ran tasks.",
            Kind::Counter,
            points(|handle| {
                let metrics = handle.metrics();
                let busy = (0..metrics.num_workers()).map(|thread| metrics.worker_total_busy_duration(thread));
                Value::Number(busy.map(|busy| busy.as_secs_f64()).sum())
            }),
        ),
        family(
            "pillion_runtime_parks",
            "Times that threads had nothing to do.",
            Kind::Counter,
            points(|handle| {
                let metrics = handle.metrics();
                number((0..metrics.num_workers()).map(|thread| metrics.worker_park_count(thread)).sum())
            }),
        ),
    ]
}
