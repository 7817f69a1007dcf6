//! `/memory`: what we take, as the kernel counts it, and what takes it. The allocator's own figures are not to be had
//! without unsafe code.

use serde_json::{Map, Value, json};

use super::Admin;

/// Lines of `/proc/self/smaps_rollup` that are shown.
const SHOWN: [(&str, &str); 6] = [
    ("Rss", "resident"),
    ("Pss", "proportional"),
    ("Private_Dirty", "private_dirty"),
    ("Anonymous", "anonymous"),
    ("LazyFree", "given_back_lazily"),
    ("Swap", "swapped"),
];

pub(super) fn memory(admin: &Admin) -> Value {
    let shared = &admin.shared;
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut bytes: Map<String, Value> =
        SHOWN.iter().filter_map(|(line, name)| Some(((*name).to_owned(), json!(line_of(&rollup, line)?)))).collect();
    bytes.insert("resident_most".to_owned(), json!(line_of(&status, "VmHWM")));
    bytes.insert("virtual".to_owned(), json!(line_of(&status, "VmSize")));
    let clusters = shared.clusters();
    let outbound = shared.directory.outbound().load();
    let endpoints: usize = clusters.iter().map(|cluster| cluster.upstream.members().len()).sum();
    let samples = shared.telemetry.metrics.encode().lines().filter(|line| !line.starts_with('#')).count();
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).ok();
    let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    json!({
        "bytes": bytes,
        "counts": {
            "connections": shared.drain.tasks(),
            "threads": threads,
            "open_files": files,
            "destinations": outbound.targets.len(),
            "hosts": outbound.hosts.len(),
            "clusters": clusters.len(),
            "endpoints": endpoints,
            "resources": admin.ledger.len(),
            "metric_samples": samples,
            "taps": shared.telemetry.taps.count(),
            "tap_events_lost": shared.telemetry.taps.lost(),
        },
    })
}

/// Resident memory in bytes; 0 when the kernel does not say.
pub(super) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    line_of(&status, "VmRSS").unwrap_or_default()
}

/// `NAME:   123 kB`, in bytes.
fn line_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = "a\nRss:  12 kB\nRssX: 3 kB\n";
        assert_eq!(line_of(text, "Rss"), Some(12 * 1024));
        assert_eq!(line_of(text, "Swap"), None);
        assert!(resident() > 0);
    }
}
