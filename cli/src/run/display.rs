//! What `pillion run` shows: a line for every change of a process's state.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use serde_json::Value;

use crate::child::{Board, State, Status};

/// Knows what was shown, so that only changes are.
#[derive(Debug, Default)]
pub(super) struct Display {
    shown: BTreeMap<String, State>,
}

impl Display {
    /// Shows what changed.
    pub(super) fn show(&mut self, board: &Board) -> io::Result<()> {
        let width = board.keys().map(String::len).max().unwrap_or(0);
        for (name, status) in board {
            if self.shown.get(name) != Some(&status.state) {
                say(&format!("{name:width$}  {}{}", status.state, addresses(status)))?;
                self.shown.insert(name.clone(), status.state.clone());
            }
        }
        let gone: Vec<String> = self.shown.keys().filter(|name| !board.contains_key(*name)).cloned().collect();
        for name in gone {
            say(&format!("{name:width$}  stopped"))?;
            self.shown.remove(&name);
        }
        Ok(())
    }
}

/// A line on standard output.
pub(super) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// The addresses of a ready line, once the process is ready.
fn addresses(status: &Status) -> String {
    if status.state != State::Ready {
        return String::new();
    }
    let Some(ready) = status.ready.as_object() else { return String::new() };
    let mut text = String::new();
    for (key, value) in ready.iter().filter(|(key, _)| *key != "event") {
        match value {
            Value::String(address) => text.push_str(&format!("  {key} {address}")),
            Value::Object(several) => {
                for (inner, address) in several {
                    let address = address.as_str().unwrap_or_default();
                    text.push_str(&format!("  {key} {inner} {address}"));
                }
            }
            _ => {}
        }
    }
    text
}
