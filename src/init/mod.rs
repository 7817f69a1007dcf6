//! `pillion-proxy init`: the rules that redirect a network namespace's connections to its sidecar.
//!
//! | file | holds |
//! |---|---|
//! | `flags` | the command line |
//! | `rules` | what is redirected and what is not, said once |
//! | `nft`, `iptables`, `routing` | the same as text for each program; no side effects |
//! | `backend` | which programs are here, and the steps that install or remove |
//! | `verify` | proof by dialling |
//!
//! Everything that changes anything is a [`program::Step`]: a dry run prints what a real one runs.

mod backend;
mod error;
mod flags;
mod iptables;
mod nft;
mod program;
mod routing;
mod rules;
mod turn;
mod value;
mod verify;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, thread};

use tokio::time::Instant;

use backend::Backend;
use error::InitError;
use flags::{Flags, Mode};
use iptables::Family;
use program::Step;
use rules::{Chain, Rules};
use turn::Turn;

/// Runs `init`. `args` starts with the name of the program, then `init`.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    // Verification may start ourselves again: `pillion proxy init` or `pillion-proxy init`.
    let inside = args.first().is_some_and(|name| name == "pillion proxy");
    let program: Vec<String> = if inside { vec!["proxy".to_owned()] } else { Vec::new() };
    let flags = match Flags::read(args.into_iter().skip(1)) {
        Ok(flags) => flags,
        Err(usage) => {
            // Nobody is left to tell when the terminal is gone.
            let _printed = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    if let Some(target) = flags.dial {
        return dial_for_parent(target);
    }
    match run(&flags, &program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "pillion-proxy init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, program: &[String]) -> Result<(), InitError> {
    let families = backend::families();
    if families.len() == 1 {
        // A comment in what a dry run prints.
        say("# IPv6 is skipped: the kernel has none");
    }
    if flags.dry_run {
        return dry_run(flags, &families);
    }
    if !may_administer() {
        return Err(InitError::NoPermission);
    }
    if flags.undo {
        return undo(&families);
    }
    if !flags.verify_only {
        if !flags.without_listener {
            wait_for_listeners(flags, &families)?;
        }
        install(flags, &families)?;
    }
    if flags.verify || flags.verify_only {
        for proved in verify::verify(flags, &families, program)? {
            say(&format!("verified: {proved}"));
        }
    }
    Ok(())
}

/// Puts the rules in place with the first backend that can, then removes what earlier runs left with others.
fn install(flags: &Flags, families: &[Family]) -> Result<(), InitError> {
    let _turn = Turn::take();
    let rules = Rules::new(flags);
    let chains = rules.chains();
    if flags.mode == Mode::Tproxy {
        let steps = backend::make_route(families, rules.routing_mark()).map_err(InitError::Routing)?;
        run_all(&steps).map_err(InitError::Routing)?;
    }
    // Rules of an earlier run are better than none: they stay when these cannot be had.
    let first_run = Backend::ALL.iter().all(|backend| backend.remove(families).is_empty());
    let mut tried = String::new();
    let installed = Backend::wanted(flags.backend).into_iter().find(|backend| {
        let done = backend.install(&chains, families).and_then(|steps| run_all(&steps));
        if let Err(failure) = &done {
            tried.push_str(&format!("  {}: {failure}\n", backend.name()));
            if first_run {
                // One family may have been done before the other failed.
                let _best_effort = run_every(&backend.remove(families));
            }
        }
        done.is_ok()
    });
    let Some(installed) = installed else {
        if first_run {
            let _best_effort = run_every(&backend::remove_route(families));
        }
        return Err(InitError::NoBackend { tried: tried.trim_end().to_owned() });
    };
    let others = Backend::ALL.into_iter().filter(|backend| *backend != installed);
    let mut leftovers: Vec<Step> = others.flat_map(|backend| backend.remove(families)).collect();
    if flags.mode == Mode::Redirect {
        leftovers.extend(backend::remove_route(families));
    }
    run_every(&leftovers)?;
    say(&format!(
        "redirected with {}, {}: what applications call to port {}, what calls them to port {}{}",
        installed.name(),
        if families.len() == 1 { "IPv4" } else { "IPv4 and IPv6" },
        flags.outbound_port,
        flags.inbound_port,
        if flags.mode == Mode::Tproxy { " (tproxy)" } else { "" },
    ));
    Ok(())
}

fn undo(families: &[Family]) -> Result<(), InitError> {
    let _turn = Turn::take();
    let steps = removal(families);
    run_every(&steps)?;
    say(if steps.is_empty() { "nothing to remove" } else { "removed" });
    Ok(())
}

/// The steps that remove everything of ours.
fn removal(families: &[Family]) -> Vec<Step> {
    let rules = Backend::ALL.into_iter().flat_map(|backend| backend.remove(families));
    rules.chain(backend::remove_route(families)).collect()
}

fn dry_run(flags: &Flags, families: &[Family]) -> Result<(), InitError> {
    if flags.undo {
        if !may_administer() {
            say(
                "# what is there cannot be read without CAP_NET_ADMIN; table inet pillion of nft, chains pillion_* of iptables, \
                 rule and route of table 133 would be removed",
            );
        }
        removal(families).iter().for_each(|step| say(&step.to_string()));
        return Ok(());
    }
    let rules = Rules::new(flags);
    let chains: Vec<Chain> = rules.chains();
    let mut tried = String::new();
    for backend in Backend::wanted(flags.backend) {
        let steps = match backend.install(&chains, families) {
            Ok(steps) => steps,
            Err(failure) => {
                tried.push_str(&format!("  {}: {failure}\n", backend.name()));
                continue;
            }
        };
        say(&format!("# with {}; should the kernel refuse it, auto goes on to the next backend", backend.name()));
        if flags.mode == Mode::Tproxy {
            let route = backend::make_route(families, rules.routing_mark()).map_err(InitError::Routing)?;
            route.iter().for_each(|step| say(&step.to_string()));
        }
        steps.iter().for_each(|step| say(&step.to_string()));
        return Ok(());
    }
    Err(InitError::NoBackend { tried: tried.trim_end().to_owned() })
}

/// Stops at the first failure.
fn run_all(steps: &[Step]) -> Result<(), error::Failure> {
    steps.iter().try_for_each(|step| step.run().map(drop))
}

/// Goes on after failures, and says them all.
fn run_every(steps: &[Step]) -> Result<(), InitError> {
    let failures: Vec<String> =
        steps.iter().filter_map(|step| step.run().err()).map(|failure| failure.to_string()).collect();
    if failures.is_empty() { Ok(()) } else { Err(InitError::Undo(failures.join("\n"))) }
}

/// Rules never exist before the listener does: what they redirected would be refused.
fn wait_for_listeners(flags: &Flags, families: &[Family]) -> Result<(), InitError> {
    let start = Instant::now();
    for family in families.iter().filter(|family| verify::in_use(**family)) {
        let ip: IpAddr = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::new(ip, flags.outbound_port);
        while let Err(source) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            if start.elapsed() >= flags.wait {
                return Err(InitError::NoListener { address, waited: flags.wait, source });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// True when we have `CAP_NET_ADMIN` (capability 12), or cannot know.
fn may_administer() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_none_or(|bits| bits & (1 << 12) != 0)
}

fn dial_for_parent(target: SocketAddr) -> ExitCode {
    let (dialled, said) = match verify::dial_for_parent(target) {
        Ok((dialled, port)) => (Some(dialled), port.to_string()),
        Err(found) => (None, found),
    };
    say(&said);
    // The connection lasts until the parent has looked at it.
    let _closed = io::stdin().read(&mut [0]);
    if dialled.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(text: &str) {
    let mut stdout = io::stdout();
    // Nobody needs to listen.
    let _closed = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
