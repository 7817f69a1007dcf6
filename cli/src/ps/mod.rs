//! `pillion ps`: what each sidecar of a mesh runs.

mod table;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use clap::{Args, ValueEnum};
use pillion_wire::observe::Sidecars;

use crate::{locate, run::Interrupts};
pub(crate) use table::clean;

const AGAIN: Duration = Duration::from_secs(2);

/// Settings of `pillion ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
CONFIG is `in sync` when the sidecar has accepted the newest version of all that it asks for, else how many it lacks and
since when; what it refused is below it, with its reason. CERTIFICATE is how long it is still valid.

Examples:
  pillion ps
  pillion ps --watch
  pillion ps --output json | jq '.sidecars[] | select(.configuration.behind > 0)'")]
pub(crate) struct Ps {
    #[command(flatten)]
    which: locate::Which,
    /// How it is shown.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Again every two seconds, until Ctrl-C. JSON comes as one line each time.
    #[arg(long, short)]
    watch: bool,
}

/// How something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Shows it.
pub(crate) fn run(settings: &Ps) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            outcome = show(settings) => outcome,
            () = interrupts.next() => Ok(()),
        }
    }))
}

async fn show(settings: &Ps) -> anyhow::Result<()> {
    if !settings.watch {
        let sidecars = ask(settings.which.find().await).await?;
        print(settings, &sidecars)?;
        return Ok(());
    }
    let mut admin = settings.which.find().await;
    let clears = settings.output == Output::Text && io::stdout().is_terminal();
    loop {
        match ask(admin).await {
            Ok(sidecars) => {
                if clears {
                    write!(io::stdout(), "\x1b[H\x1b[2J")?;
                }
                if print(settings, &sidecars).is_err() {
                    return Ok(()); // Nobody reads any more.
                }
            }
            Err(error) => {
                writeln!(io::stderr(), "pillion: {error:#}; trying again")?;
                // It may have been started anew, somewhere else.
                admin = settings.which.find().await;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn ask(admin: SocketAddr) -> anyhow::Result<Sidecars> {
    locate::json(admin, "/api/v1/sidecars").await
}

fn print(settings: &Ps, sidecars: &Sidecars) -> io::Result<()> {
    let text = match settings.output {
        Output::Text => table::table(sidecars, table::now()),
        Output::Json if settings.watch => serde_json::to_string(sidecars)? + "\n",
        Output::Json => serde_json::to_string_pretty(sidecars)? + "\n",
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
