//! `pillion explain`: what would become of a request, found in the documents alone; or what a reason code means.
//!
//! The documents go the whole way that they go in a mesh: the control plane's index and translation, then the sidecar's
//! own reading and matching. Nothing is decided here.

mod answer;
mod ask;
mod quote;
mod text;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use pillion_proxy::telemetry::explain::{REASONS, page};

use ask::Question;

/// Settings of `pillion explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without traffic: which Service, which rule of which route and why not the others, what is done to the request, where it
goes, which policies hold, what the server's sidecar says to it, and what the caller gets; each with file and line.
Exit status: 0 when the request would reach an application, 1 when it would not, 2 when the question makes no sense.

Examples:
  pillion explain --from web --to orders.shop:80 GET /orders/7 shop/
  pillion explain --from shop/web GET http://orders/orders?id=7 --header 'x-canary: yes' shop/
  pillion explain overflow")]
pub(crate) struct Explain {
    /// The calling Workload, NAME or NAMESPACE/NAME; or `outside`, a caller without a sidecar.
    #[arg(long, value_name = "WORKLOAD")]
    from: Option<String>,
    /// Whom it calls: HOST or HOST:PORT, as the application would name it [default: as the URL says]
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// A header field of the request, NAME: VALUE; may be repeated.
    #[arg(long, short = 'H', value_name = "FIELD")]
    header: Vec<String>,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// A reason code; or METHOD URL DIR: the request, its URL perhaps only a path, and the folder of documents.
    #[arg(required = true, num_args = 1..=3, value_name = "CODE | METHOD URL DIR")]
    subject: Vec<String>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints the answer.
pub(crate) fn run(settings: &Explain) -> ExitCode {
    match answer(settings) {
        Ok((text, code)) => match writeln!(std::io::stdout(), "{}", text.trim_end()) {
            Ok(()) => code,
            Err(_closed) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "pillion: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn answer(settings: &Explain) -> anyhow::Result<(String, ExitCode)> {
    match settings.subject.as_slice() {
        [code] => {
            let page = page(code).with_context(|| format!("there is no reason code {code}; {}", known()))?;
            Ok((page.to_owned(), ExitCode::SUCCESS))
        }
        [method, url, dir] => {
            let from = settings.from.as_deref().context("--from says which Workload calls")?;
            let dir = PathBuf::from(dir);
            let question = Question::new(from, settings.to.as_deref(), method, url, &settings.header)?;
            let told = answer::find(&question, &dir)?;
            let text = match settings.output {
                Output::Text => text::render(&told),
                Output::Json => serde_json::to_string_pretty(&told)?,
            };
            Ok((text, if told.reaches_an_application() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
        }
        _ => bail!("explain a reason code, or METHOD URL DIR; see `pillion explain --help`"),
    }
}

fn known() -> String {
    let codes: Vec<&str> = REASONS.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    format!("the codes are {}", codes.join(", "))
}
