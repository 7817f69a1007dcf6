//! What is logged, changed while the program runs.

use std::sync::Arc;

use parking_lot::Mutex;
use pillion_wire::query::log_filter;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::info;

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

    /// Does what a query says: `level=debug`, a filter as `tracing` has them (`pillion_proxy::discovery=debug`), `for=10m`.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn change(self: &Arc<Self>, query: &str) -> Result<Value, String> {
        let (filter, lasts) = log_filter(query)?;
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
