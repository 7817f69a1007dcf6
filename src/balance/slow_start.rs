//! How much of its weight a host has that has just come (Envoy, "Slow start mode").

use std::time::Duration;

use crate::config::SlowStart;

/// The part of its weight that a host has so long after it came, from 0 to 1.
pub fn started(slow: SlowStart, age: Duration) -> f64 {
    let window = slow.window.as_secs_f64();
    if age >= slow.window {
        return 1.0;
    }
    // As in Envoy, time counts from 1 s on: nothing begins with nothing.
    let passed = (age.as_secs_f64() / window).max((1.0 / window).min(1.0));
    passed.powf(100.0 / f64::from(slow.aggression.max(1))).max(f64::from(slow.minimum) / 100.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_follows_the_formula_of_envoy() {
        let slow = |aggression, minimum| SlowStart { window: Duration::from_secs(100), aggression, minimum };
        for (slow, seconds, expected) in [
            (slow(100, 10), 0, 0.1),
            (slow(100, 10), 50, 0.5),
            (slow(200, 10), 25, 0.5),
            (slow(50, 10), 50, 0.25),
            (slow(100, 0), 0, 0.01),
            (slow(100, 10), 100, 1.0),
        ] {
            let found = started(slow, Duration::from_secs(seconds));
            assert!((found - expected).abs() < 1e-9, "{slow:?} after {seconds} s: {found}");
        }
        let short = SlowStart { window: Duration::from_millis(10), aggression: 100, minimum: 10 };
        assert!((started(short, Duration::ZERO) - 1.0).abs() < 1e-9);
    }
}
