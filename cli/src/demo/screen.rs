//! What the demo shows: notes of what happens, and a table per edge that is redrawn in place on a terminal.

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use super::edges::{Row, SPLIT};

/// Where notes and tables go.
pub(super) struct Screen {
    out: Box<dyn Write>,
    in_place: bool,
    /// Lines of the table that stands on the terminal now.
    drawn: usize,
    /// What was written last, to leave a line free between notes and tables.
    last: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Note,
    Table,
}

impl Screen {
    /// Standard output, or standard error when standard output is for the summary alone.
    pub(super) fn new(on_stderr: bool) -> Self {
        let (out, in_place): (Box<dyn Write>, bool) = if on_stderr {
            (Box::new(io::stderr()), io::stderr().is_terminal())
        } else {
            (Box::new(io::stdout()), io::stdout().is_terminal())
        };
        Self { out, in_place, drawn: 0, last: Part::Note }
    }

    /// Whether the table is redrawn in place, and so may be drawn often.
    pub(super) const fn is_live(&self) -> bool {
        self.in_place
    }

    /// A line that stays.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.begin(Part::Note)?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// The table of what happened over `time`.
    pub(super) fn table(&mut self, rows: &[Row], split: &[(String, f64)], time: Duration) -> io::Result<()> {
        self.begin(Part::Table)?;
        let text = render(rows, split, time);
        self.out.write_all(text.as_bytes())?;
        self.drawn = if self.in_place { text.lines().count() } else { 0 };
        self.out.flush()
    }

    /// What is drawn now stays.
    pub(super) const fn keep(&mut self) {
        self.drawn = 0;
    }

    /// Erases the table that is to be drawn again, or leaves a line free after what stays.
    fn begin(&mut self, part: Part) -> io::Result<()> {
        if self.drawn > 0 {
            // Up as many lines as there are, then erase to the end of the screen.
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        } else if part == Part::Table || self.last == Part::Table {
            writeln!(self.out)?;
        }
        self.last = part;
        Ok(())
    }
}

fn render(rows: &[Row], split: &[(String, f64)], time: Duration) -> String {
    let mut text = format!(
        "  {:<20} {:>7}  {:>8}  {:>9}  {:>9}  {}\n",
        "edge", "req/s", "success", "p50", "p99", "peer (mutual TLS)"
    );
    for row in rows {
        let edge = format!("{} -> {}", row.from, row.to);
        let rate = row.requests as f64 / time.as_secs_f64().max(0.001);
        let success = match row.requests {
            0 => "-".to_owned(),
            all => format!("{:.1} %", 100.0 * (all - row.failed) as f64 / all as f64),
        };
        let peer = if row.mtls { row.peer.as_str() } else { "NOT MUTUAL TLS" };
        let peer = if row.requests == 0 { "-" } else { peer };
        text.push_str(&format!(
            "  {edge:<20} {rate:>7.1}  {success:>8}  {:>6.2} ms  {:>6.2} ms  {peer}",
            row.p50_ms, row.p99_ms
        ));
        if row.to == SPLIT && !split.is_empty() {
            let parts: Vec<String> = split.iter().map(|(name, share)| format!("{name} {share:.0} %")).collect();
            text.push_str(&format!("  [{}]", parts.join(", ")));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_rate_success_peer_and_split() {
        let row = Row {
            from: "orders",
            to: "payment",
            requests: 200,
            failed: 2,
            p50_ms: 1.5,
            p99_ms: 12.25,
            peer: "spiffe://cluster.local/ns/shop/sa/payment".to_owned(),
            mtls: true,
        };
        let text = render(&[row], &[("payment-v1".to_owned(), 90.2)], Duration::from_secs(2));
        let expected = "  orders -> payment      100.0    99.0 %    1.50 ms   12.25 ms  \
                        spiffe://cluster.local/ns/shop/sa/payment  [payment-v1 90 %]";
        assert_eq!(text.lines().nth(1), Some(expected));
    }
}
