//! An average of latencies that forgets: at once what was better, slowly what was worse.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Finagle's "peak" average (`PeakEwma` in `twitter/finagle`, `tower::load::PeakEwma`).
///
/// A latency above the average replaces it; one below is mixed in, with more weight the longer ago the last one was. While
/// nothing is heard the average decays towards nothing, so that a host that was slow is tried again.
#[derive(Debug, Default)]
pub struct Ewma(Mutex<Option<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    seconds: f64,
    at: Instant,
}

impl Ewma {
    /// Adds what was observed now.
    pub fn observe(&self, latency: Duration, now: Instant, decay: Duration) {
        let latency = latency.as_secs_f64();
        let mut state = self.0.lock();
        let seconds = match *state {
            None => latency,
            Some(known) if latency >= known.seconds => latency,
            Some(known) => {
                let kept = kept(known.at, now, decay);
                known.seconds * kept + latency * (1.0 - kept)
            }
        };
        *state = Some(State { seconds, at: now });
    }

    /// What is to be expected now, in seconds. `None`: nothing was observed yet.
    pub fn expect(&self, now: Instant, decay: Duration) -> Option<f64> {
        let state = *self.0.lock();
        state.map(|state| state.seconds * kept(state.at, now, decay))
    }
}

/// How much of an average of then is left now.
fn kept(then: Instant, now: Instant, decay: Duration) -> f64 {
    let elapsed = now.saturating_duration_since(then).as_secs_f64();
    (-elapsed / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let (ewma, start) = (Ewma::default(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(ewma.expect(start, DECAY), None);
        ewma.observe(ms(10), start, DECAY);
        ewma.observe(ms(100), start + ms(1), DECAY);
        assert_eq!(ewma.expect(start + ms(1), DECAY), Some(0.1));
        ewma.observe(ms(10), start + ms(2), DECAY);
        let soon = ewma.expect(start + ms(2), DECAY).expect("observed");
        assert!((0.0999..0.1).contains(&soon), "{soon}");
        let later = ewma.expect(start + ms(2) + DECAY, DECAY).expect("observed");
        assert!((0.036..0.038).contains(&later), "{later}");
        ewma.observe(ms(10), start + 10 * DECAY, DECAY);
        let settled = ewma.expect(start + 10 * DECAY, DECAY).expect("observed");
        assert!((0.0099..0.0101).contains(&settled), "{settled}");
    }
}
