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
use pillion_wire::spiffe::TrustDomain;
use serde::Deserialize;

use crate::locate;
use crate::ps::clean;
use ask::Question;

/// Settings of `pillion explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without traffic, from the documents of DIR, or of the mesh that runs here: which Service, which rule of which route and why not the others, what is done to the request, where it
goes, which policies hold, what the server's sidecar says to it, and what the caller gets; each with file and line.
Exit status: 0 when the request would reach an application, 1 when it would not, 2 when the question makes no sense.

Examples:
  pillion explain --from web GET http://orders.shop/orders/7
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
    /// Trust domain of the mesh [default: as the running mesh says; with DIR cluster.local]
    #[arg(long, env = "PILLION_TRUST_DOMAIN")]
    trust_domain: Option<TrustDomain>,
    #[command(flatten)]
    which: locate::Which,
    /// A reason code; or METHOD URL [DIR]: the request, its URL perhaps only a path, and the folder of documents [default:
    /// the one that the control plane of this machine reads]
    #[arg(required = true, num_args = 1..=3, value_name = "CODE | METHOD URL [DIR]")]
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
        [method, url, dir @ ..] => {
            let from = settings.from.as_deref().context("--from says which Workload calls")?;
            let question = Question::new(from, settings.to.as_deref(), method, url, &settings.header)?;
            let (said, documents) = match dir.first() {
                Some(dir) => (String::new(), Documents { folder: dir.into(), trust_domain: "cluster.local".parse()? }),
                None => running(&settings.which)?,
            };
            let trust_domain = settings.trust_domain.clone().unwrap_or(documents.trust_domain);
            let told = answer::find(&question, &documents.folder, trust_domain)?;
            let text = match settings.output {
                Output::Text => said + &text::render(&told),
                Output::Json => serde_json::to_string_pretty(&told)?,
            };
            Ok((text, if told.reaches_an_application() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
        }
        [] => bail!("explain a reason code, or METHOD URL [DIR]; see `pillion explain --help`"),
    }
}

/// What a control plane serves, and for whom.
struct Documents {
    folder: PathBuf,
    trust_domain: TrustDomain,
}

/// What the control plane of this machine says of itself.
#[derive(Deserialize)]
struct Running {
    folder: PathBuf,
    trust_domain: String,
}

/// The documents of the mesh that runs, and which one that is.
fn running(which: &locate::Which) -> anyhow::Result<(String, Documents)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (admin, found) = runtime.block_on(async {
        let admin = which.find().await;
        (admin, locate::json::<Running>(admin, "/api/v1/config").await)
    });
    let Running { folder, trust_domain } = found.context("no DIR is said, and no mesh says its own")?;
    if !folder.is_dir() {
        bail!("the mesh at {admin} reads {}, which is not on this machine: say DIR", folder.display());
    }
    let said = format!("documents of the mesh at {admin}: {}\n", clean(&folder.display().to_string()));
    Ok((said, Documents { folder, trust_domain: trust_domain.parse()? }))
}

fn known() -> String {
    let codes: Vec<&str> = REASONS.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    format!("the codes are {}", codes.join(", "))
}
