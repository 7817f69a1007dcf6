//! One event as one line.

use pillion_wire::observe::TapEvent;

use crate::ps::clean;

/// Time (UTC), end, who saw it, method, what was asked for, status, duration, the other end, and what went wrong.
pub(super) fn line(event: &TapEvent) -> String {
    let mark = if event.direction == "outbound" { "→" } else { "←" };
    // Opaque TCP asks for nothing: where it went is known.
    let host = if event.authority.is_empty() { &event.destination } else { &event.authority };
    let asked = clean(&format!("{host}{}", event.path));
    let lock = if event.tls == "mutual" { "mTLS" } else { "-" };
    let status = if event.response_code == 0 { "-".to_owned() } else { event.response_code.to_string() };
    let mut text = format!(
        "{} {mark} {:<18} {:<6} {asked:<34} {status:>3} {:>8} {lock:<4} {}",
        time(event.time_ms),
        clean(&event.workload),
        clean(&event.method),
        duration(event.duration_ms),
        other_end(event),
    );
    let reason =
        if event.reason.is_empty() { String::new() } else { format!("  {} {}", event.reason, event.response_flags) };
    text.push_str(&clean(&reason));
    if event.attempts > 1 {
        text.push_str(&format!("  {} attempts", event.attempts));
    }
    if !event.route_name.is_empty() {
        text.push_str(&format!("  route {}", clean(&event.route_name)));
    }
    if !event.trace_id.is_empty() {
        text.push_str(&format!("  trace {}", clean(&event.trace_id)));
    }
    for field in &event.request_headers {
        match &field.value {
            Some(value) => text.push_str(&format!("  {}={}", clean(&field.name), clean(value))),
            None => text.push_str(&format!("  {}", clean(&field.name))),
        }
    }
    text.trim_end().to_owned()
}

/// Its account, else the address.
fn other_end(event: &TapEvent) -> String {
    if let Some((_, path)) = event.peer.split_once("/ns/") {
        return clean(&path.replacen("/sa/", "/", 1));
    }
    let address = if event.direction == "outbound" { &event.upstream_host } else { &event.downstream_remote_address };
    clean(address)
}

/// `12:03:04.123`
fn time(unix_ms: u64) -> String {
    let (seconds, millis) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0}us", ms * 1000.0),
        ms if ms < 1000.0 => format!("{ms:.1}ms"),
        ms => format!("{:.2}s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_what_and_how() {
        let event = TapEvent {
            time_ms: 43_384_123,
            workload: "shop/web".into(),
            direction: "outbound".into(),
            method: "GET".into(),
            authority: "orders.shop".into(),
            path: "/a\x1b[2J".into(),
            response_code: 503,
            reason: "no_healthy_upstream".into(),
            response_flags: "UH".into(),
            duration_ms: 12.34,
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            ..TapEvent::default()
        };
        let text = line(&event);
        assert!(text.starts_with("12:03:04.123 → shop/web           GET    orders.shop/a?[2J"), "{text}");
        assert!(text.ends_with("no_healthy_upstream UH  trace 4bf92f3577b34da6a3ce929d0e0e4736"), "{text}");
    }
}
