//! What is logged, changed while the program runs.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::pairs::pairs;

/// Longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 1024;
/// Longest time after which a filter goes back.
const LONGEST: Duration = Duration::from_secs(86_400);

type Set = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The filter of the log.
pub struct Logging {
    set: Set,
    state: Mutex<State>,
}

struct State {
    usual: String,
    current: String,
    until: Option<Instant>,
    changes: u64,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logging").field("filter", &self.state.lock().current).finish_non_exhaustive()
    }
}

impl Logging {
    /// `usual` is in force; `set` puts another one in force, or says why not.
    pub fn new(usual: &str, set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Arc<Self> {
        let state = State { usual: usual.to_owned(), current: usual.to_owned(), until: None, changes: 0 };
        Arc::new(Self { set: Box::new(set), state: Mutex::new(state) })
    }

    /// What is in force, and for how long.
    pub fn show(&self) -> Value {
        let state = self.state.lock();
        let left = state.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        json!({ "filter": state.current, "usual": state.usual, "back_in_seconds": left })
    }

    /// Does what a query says: `level=debug`, a filter as `tracing` has them (`pillion_control_plane::xds=debug`), `for=10m`.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn change(self: &Arc<Self>, query: &str) -> Result<Value, String> {
        let (filter, lasts) = parse(query)?;
        let (number, until) = {
            let mut state = self.state.lock();
            (self.set)(&filter)?;
            state.changes += 1;
            state.until = lasts.map(|lasts| Instant::now() + lasts);
            state.current = filter;
            (state.changes, state.until)
        };
        info!(filter = self.state.lock().current, ?lasts, "another log filter, as the admin port was told");
        if let Some(until) = until {
            let logging = Arc::clone(self);
            tokio::spawn(async move {
                sleep_until(until).await;
                logging.back(number);
            });
        }
        Ok(self.show())
    }

    /// Goes back to the usual filter, unless there was another change since `number`.
    fn back(&self, number: u64) {
        let mut state = self.state.lock();
        if state.changes == number && (self.set)(&state.usual).is_ok() {
            state.current = state.usual.clone();
            state.until = None;
        }
    }
}

fn parse(query: &str) -> Result<(String, Option<Duration>), String> {
    let (mut directives, mut lasts) = (Vec::new(), None);
    for (name, value) in pairs(query) {
        match name.as_str() {
            "level" if matches!(value.as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace") => {
                directives.push(value);
            }
            "level" => return Err(format!("level `{value}`: off, error, warn, info, debug or trace")),
            "for" => {
                let problem = format!("for `{value}`: a whole number and s, m or h, at most 24h, such as 10m");
                lasts = Some(duration(&value).filter(|lasts| *lasts <= LONGEST).ok_or(problem)?);
            }
            _ if value.is_empty() => directives.push(name),
            _ => directives.push(format!("{name}={value}")),
        }
    }
    let filter = directives.join(",");
    if filter.is_empty() || filter.len() > MAX_FILTER_BYTES {
        return Err("say what to log: ?level=debug, or a filter as ?info,pillion_control_plane::xds=debug".to_owned());
    }
    Ok((filter, lasts))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|character: char| !character.is_ascii_digit())?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_people_write_them() {
        let read = |query: &str| parse(query).map(|(filter, lasts)| (filter, lasts.map(|lasts| lasts.as_secs())));
        assert_eq!(read("level=debug"), Ok(("debug".to_owned(), None)));
        assert_eq!(read("level=debug&for=10m"), Ok(("debug".to_owned(), Some(600))));
        assert_eq!(read("info,a::b=debug&for=5s"), Ok(("info,a::b=debug".to_owned(), Some(5))));
        for query in ["", "for=5s", "level=loud", "level=debug&for=5", "level=debug&for=99999h", "level=debug&for=0s"] {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
