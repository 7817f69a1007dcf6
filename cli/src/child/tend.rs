//! The life of one child: start, ready, end, and again.

use std::{path::PathBuf, process::ExitStatus, process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Board, LogBook, Spec, State, Status, Stop, backoff::Backoff, lifeline};
use crate::client;

const BETWEEN_LOOKS: Duration = Duration::from_millis(30);
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// A child and all that its life needs.
pub(super) struct Tended {
    pub(super) spec: Spec,
    pub(super) executable: PathBuf,
    pub(super) board: watch::Sender<Board>,
    pub(super) log: Arc<LogBook>,
}

impl Tended {
    fn says(&self, state: State) {
        let keeps_pid = matches!(state, State::Starting | State::Ready);
        self.board.send_modify(|board| {
            let status = board.entry(self.spec.name.clone()).or_insert_with(|| Status {
                state: State::Starting,
                pid: None,
                ready: Value::Null,
            });
            status.state = state;
            if !keeps_pid {
                status.pid = None;
            }
        });
    }

    fn amend(&self, change: impl FnOnce(&mut Status)) {
        self.board.send_modify(|board| {
            if let Some(status) = board.get_mut(&self.spec.name) {
                change(status);
            }
        });
    }
}

/// Starts the child, and again when it ends, until it is stopped.
pub(super) async fn tend(tended: Tended, mut stopping: watch::Receiver<Stop>) {
    let mut backoff = Backoff::default();
    loop {
        tended.says(State::Starting);
        let start = Instant::now();
        let how = match spawn(&tended) {
            Ok(child) => live(&tended, &mut stopping, child).await,
            Err(error) => Some(format!("cannot start: {error}")),
        };
        let Some(how) = how else { return tended.says(State::Stopped) };
        if !tended.spec.restart {
            return tended.says(State::Exited { how, restart_in: None });
        }
        let wait = backoff.next(start.elapsed());
        tended.says(State::Exited { how, restart_in: Some(wait) });
        tokio::select! {
            () = sleep(wait) => {}
            _ = stopping.wait_for(|stop| *stop != Stop::NotYet) => return tended.says(State::Stopped),
        }
    }
}

fn spawn(tended: &Tended) -> std::io::Result<Child> {
    let mut command = std::process::Command::new(&tended.executable);
    command.args(&tended.spec.arguments);
    clear_settings(&mut command);
    lifeline::tie(&mut command);
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(tended.log.output()?);
    let _lent = tended.spec.powers.lend()?;
    let child = command.process_group(0).kill_on_drop(true).spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    tended.amend(|status| status.pid = pid);
    Ok(child)
}

/// Settings come from what we wrote for this child; those of our own environment, which would win, are for one process
/// and not for all. Only what is said about logs holds for all.
fn clear_settings(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PILLION_") && text != "PILLION_LOG" {
            command.env_remove(&name);
        }
    }
}

/// Until the child ends: how it did, or nothing when we asked for it.
async fn live(tended: &Tended, stopping: &mut watch::Receiver<Stop>, mut child: Child) -> Option<String> {
    if let Some(stderr) = child.stderr.take() {
        let (log, name) = (Arc::clone(&tended.log), tended.spec.name.clone());
        // Ends with the child, which closes its output.
        tokio::spawn(async move { log.follow(&name, stderr).await });
    }
    let stdout = child.stdout.take();
    let becoming_ready = async {
        if let Some(stdout) = stdout {
            become_ready(tended, stdout).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = child.wait() => return Some(describe(status)),
        () = becoming_ready => {}
        _ = stopping.wait_for(|stop| *stop != Stop::NotYet) => {}
    }
    end(&mut child, stopping).await;
    None
}

/// Reads the ready line, asks the health port that it names, then reads on so that the child never waits for us.
async fn become_ready(tended: &Tended, stdout: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(ready) = serde_json::from_str::<Value>(&line) else { continue };
        if ready.get("event").and_then(Value::as_str) != Some("ready") {
            continue;
        }
        tended.amend(|status| status.ready = ready.clone());
        if let Some(health) = ready.get("health").and_then(Value::as_str).and_then(|text| text.parse().ok()) {
            while !client::get(health, "/ready", LOOK_DEADLINE).await.is_ok_and(|reply| reply.is_success()) {
                sleep(BETWEEN_LOOKS).await;
            }
        }
        tended.says(State::Ready);
    }
}

/// SIGTERM, patience, SIGKILL.
async fn end(child: &mut Child, stopping: &mut watch::Receiver<Stop>) {
    let grace = match *stopping.borrow_and_update() {
        Stop::Within(grace) => grace,
        Stop::NotYet | Stop::Now => Duration::ZERO,
    };
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended by itself in the meantime.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    tokio::select! {
        _ = timeout(grace, child.wait()) => {}
        _ = stopping.wait_for(|stop| *stop == Stop::Now) => {}
    }
    let _ended = child.kill().await;
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("lost sight of it: {error}"),
    }
}
