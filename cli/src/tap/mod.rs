//! `pillion tap`: requests of a mesh as they end, from all its sidecars.

mod line;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use http_body_util::BodyExt as _;
use pillion_wire::observe::TapEvent;
use serde::Deserialize;

use crate::{
    locate::{self, Said, encode},
    ps::{Output, clean},
    run::Interrupts,
};

/// The first wait before the control plane is asked again; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Longest line: an event is some KiB.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Settings of `pillion tap`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each request is seen twice: `→` by its caller's sidecar (outbound), `←` by the other one (inbound). WHO is a workload,
service account or Service as NAME, NAMESPACE/NAME or NAME.NAMESPACE; `*` at its end stands for anything. All conditions
must hold. Queries are never shown, and values of header fields only of those named by --header; never of those that may
hold secrets. A reader that is too slow loses events, which is said; requests never wait for it.

Examples:
  pillion tap --to orders
  pillion tap --from web --status 5xx --slower 100ms
  pillion tap --reason '*' --output json
  pillion tap --to payment --header x-request-id --max 10")]
pub(crate) struct Tap {
    #[command(flatten)]
    which: locate::Which,
    /// Who is called.
    #[arg(long, value_name = "WHO")]
    to: Option<String>,
    /// Who calls.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// Name of the route; `*` at its end stands for anything.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Status codes: 404, 5xx, 500-504, several separated by commas.
    #[arg(long, value_name = "CODES")]
    status: Option<String>,
    /// Took at least this long: 100ms.
    #[arg(long, value_name = "DURATION")]
    slower: Option<String>,
    /// HTTP method, or TCP.
    #[arg(long)]
    method: Option<String>,
    /// Beginning of the path.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Reason codes of answers that a sidecar made, several separated by commas; `*`: any.
    #[arg(long, value_name = "CODES")]
    reason: Option<String>,
    /// Only one end: outbound or inbound.
    #[arg(long, value_name = "END")]
    direction: Option<String>,
    /// A share by chance of what matches: 0.1 or 10%.
    #[arg(long, value_name = "SHARE")]
    sample: Option<String>,
    /// Show the value of this request header; repeat it.
    #[arg(long, value_name = "NAME")]
    header: Vec<String>,
    /// Show the names of all request headers.
    #[arg(long)]
    headers: bool,
    /// End after so many events.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// How it is shown; JSON is one object per line.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Shows requests until Ctrl-C, or as many as were wanted.
pub(crate) fn run(settings: &Tap) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            outcome = follow(settings) => outcome,
            () = interrupts.next() => Ok(()),
        }
    }))
}

async fn follow(settings: &Tap) -> anyhow::Result<()> {
    let mut shown = Shown { settings, count: 0, sidecars: None };
    let (mut wait, mut reached) = (FIRST_WAIT, false);
    loop {
        let admin = settings.which.find().await;
        let trouble = match stream(admin, &mut shown).await {
            Ok(Ended::Complete) => return Ok(()),
            Ok(Ended::Broken(why)) => {
                (wait, reached) = (FIRST_WAIT, true);
                why
            }
            Err(error) if !reached || error.is::<Said>() => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        writeln!(io::stderr(), "pillion: the control plane has gone ({trouble}); trying again")?;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

enum Ended {
    /// Nobody wants more.
    Complete,
    /// The other side ended it.
    Broken(String),
}

async fn stream(admin: std::net::SocketAddr, shown: &mut Shown<'_>) -> anyhow::Result<Ended> {
    let (_alive, response) = locate::open(admin, &shown.settings.path_of_question(shown.count)).await?;
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        if shown.is_complete() {
            return Ok(Ended::Complete);
        }
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Ok(Ended::Broken(error.to_string())),
            None => return Ok(Ended::Broken("it ended the stream".to_owned())),
        };
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = bytes.drain(..=end).collect();
            if shown.take(&String::from_utf8_lossy(&line)).is_err() {
                return Ok(Ended::Complete); // Nobody reads any more.
            }
        }
        if bytes.len() > MAX_LINE_BYTES {
            return Ok(Ended::Broken("not lines of JSON".to_owned()));
        }
    }
}

impl Tap {
    fn path_of_question(&self, seen: u64) -> String {
        let left = self.max.map(|max| max.saturating_sub(seen).to_string());
        let one = [
            ("to", &self.to),
            ("from", &self.from),
            ("route", &self.route),
            ("status", &self.status),
            ("slower", &self.slower),
            ("method", &self.method),
            ("path", &self.path),
            ("reason", &self.reason),
            ("direction", &self.direction),
            ("sample", &self.sample),
            ("max", &left),
        ];
        let one = one.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))));
        let fields = self.header.iter().map(|name| format!("header={}", encode(name)));
        let all: Vec<String> = one.chain(fields).chain(self.headers.then(|| "headers".to_owned())).collect();
        format!("/api/v1/tap?{}", all.join("&"))
    }
}

/// What was shown so far.
struct Shown<'a> {
    settings: &'a Tap,
    count: u64,
    sidecars: Option<u64>,
}

/// A line of the stream that is no event.
#[derive(Deserialize)]
struct Notice {
    lost: Option<u64>,
    sidecars: Option<u64>,
    refused: Option<String>,
    workload: Option<String>,
}

impl Shown<'_> {
    fn is_complete(&self) -> bool {
        self.settings.max.is_some_and(|max| self.count >= max)
    }

    /// Shows a line of the stream.
    fn take(&mut self, text: &str) -> io::Result<()> {
        let is_json = self.settings.output == Output::Json;
        let mut stdout = io::stdout().lock();
        match serde_json::from_str::<Notice>(text) {
            Ok(Notice { lost: Some(_), .. }) if is_json => stdout.write_all(text.as_bytes())?,
            Ok(Notice { lost: Some(lost), .. }) => writeln!(io::stderr(), "pillion: {lost} events lost")?,
            Ok(Notice { refused: Some(reason), workload, .. }) => {
                let who = workload.unwrap_or_default();
                writeln!(io::stderr(), "pillion: {} does not serve the tap: {}", clean(&who), clean(&reason))?;
                return Ok(());
            }
            Ok(Notice { sidecars: Some(count), .. }) => {
                if self.sidecars.replace(count) != Some(count) {
                    writeln!(io::stderr(), "pillion: watching {count} sidecars")?;
                }
                return Ok(());
            }
            _ if is_json => {
                self.count += 1;
                stdout.write_all(text.as_bytes())?;
            }
            _ => {
                let Ok(event) = serde_json::from_str::<TapEvent>(text) else { return Ok(()) };
                self.count += 1;
                writeln!(stdout, "{}", line::line(&event))?;
            }
        }
        stdout.flush()
    }
}
