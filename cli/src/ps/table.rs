//! The table of `pillion ps`.

use std::time::{SystemTime, UNIX_EPOCH};

use pillion_wire::observe::{Configuration, Rejected, Sidecars, State, Summary};

const HEAD: [&str; 9] =
    ["WORKLOAD", "IDENTITY", "VERSION", "UPTIME", "STATE", "CONFIG", "CERTIFICATE", "ENDPOINTS", "MEMORY"];

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A line for each, and below it what it refused.
pub(super) fn table(sidecars: &Sidecars, now: u64) -> String {
    if sidecars.sidecars.is_empty() {
        return "no sidecar is connected\n".to_owned();
    }
    let rows: Vec<[String; 9]> = sidecars.sidecars.iter().map(|one| row(one, now)).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&HEAD.map(str::to_owned), &widths);
    for (one, row) in sidecars.sidecars.iter().zip(&rows) {
        text.push_str(&line(row, &widths));
        if !one.silent.is_empty() && one.connected > 0 {
            text.push_str(&format!("  no answer: {}\n", clean(&one.silent)));
        }
        for rejected in refused(one) {
            let Rejected { kind, name, detail, at, .. } = rejected;
            let age = span(now.saturating_sub(*at));
            text.push_str(&format!("  refused {kind} {}, {age} ago: {}\n", clean(name), clean(detail)));
        }
    }
    text
}

/// As the control plane heard it; what only the sidecar knows of, besides.
fn refused(one: &Summary) -> impl Iterator<Item = &Rejected> {
    let heard = &one.configuration.rejected;
    let own = one.state.iter().flat_map(|state| &state.rejected);
    let is_new = |own: &&Rejected| !heard.iter().any(|heard| (&heard.kind, &heard.name) == (&own.kind, &own.name));
    heard.iter().chain(own.filter(is_new))
}

fn row(one: &Summary, now: u64) -> [String; 9] {
    let state = one.state.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        clean(&one.name),
        if one.identity.is_empty() { "-".to_owned() } else { short(&one.identity) },
        if one.version.is_empty() {
            "-".to_owned()
        } else if one.dialect == "pillion" {
            clean(&one.version)
        } else {
            format!("{} {}", one.dialect, clean(&one.version))
        },
        or_dash(state.map(|state| span(now.saturating_sub(state.started)))),
        if one.connected == 0 { "absent".to_owned() } else { or_dash(state.map(condition)) },
        configuration(&one.configuration, now),
        or_dash(state.and_then(|state| state.certificate.as_ref()).map(|certificate| {
            match certificate.not_after.checked_sub(now) {
                Some(left) => span(left),
                None => "expired".to_owned(),
            }
        })),
        or_dash(state.map(|state| state.endpoints.to_string())),
        or_dash(state.map(|state| format!("{} MiB", state.memory >> 20))),
    ]
}

fn condition(state: &State) -> String {
    match (state.draining, state.ready) {
        (true, _) => format!("draining, {} left", state.connections),
        (false, true) => "ready".to_owned(),
        (false, false) => format!("not ready: {}", clean(&state.why)),
    }
}

fn configuration(configuration: &Configuration, now: u64) -> String {
    let Configuration { state, version, behind, since, .. } = configuration;
    if state.is_empty() {
        return "-".to_owned();
    }
    if *behind == 0 {
        return format!("{state} ({version})");
    }
    let since = if *since == 0 { String::new() } else { format!(" for {}", span(now.saturating_sub(*since))) };
    let rejected = configuration.rejected.len();
    let refused = if rejected == 0 { String::new() } else { format!(", {rejected} refused") };
    format!("behind {behind}{since}{refused} ({version})")
}

/// `NAMESPACE/ACCOUNT` of a SPIFFE id.
fn short(id: &str) -> String {
    let path = id.split_once("/ns/").map_or(id, |(_, path)| path);
    clean(&path.replacen("/sa/", "/", 1))
}

/// `45s`, `3m12s`, `5h3m`, `2d4h`.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    let text = padded.collect::<Vec<_>>().join("  ");
    format!("{}\n", text.trim_end())
}

/// Nothing that a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (192, "3m12s"), (18_180, "5h3m"), (187_200, "2d4h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn who_is_behind_and_what_was_refused_is_shown() {
        let rejected = Rejected {
            kind: "route".into(),
            name: "orders".into(),
            detail: "regex: no\x1b".into(),
            at: 90,
            ..Rejected::default()
        };
        let configuration = Configuration {
            state: "rejected".into(),
            version: "ab".into(),
            behind: 2,
            since: 40,
            rejected: vec![rejected],
            ..Configuration::default()
        };
        let state = State { ready: false, why: "waiting".into(), ..State::default() };
        let one = Summary {
            name: "shop/orders-1".into(),
            dialect: "pillion".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/orders".into(),
            connected: 1,
            configuration,
            state: Some(state),
            ..Summary::default()
        };
        let text = table(&Sidecars { sidecars: vec![one] }, 100);
        assert!(text.contains("shop/orders  "), "{text}");
        assert!(text.contains("not ready: waiting  behind 2 for 1m0s, 1 refused (ab)"), "{text}");
        assert!(text.ends_with("  refused route orders, 10s ago: regex: no?\n"), "{text}");
    }
}
