//! Child processes of our own executable: started, watched until they are ready, started again with back-off, stopped.
//!
//! Nothing is left behind. A child is asked to stop (SIGTERM), given time, then killed; when this process dies without
//! having had the time, the kernel kills the children (see [`lifeline`]). Children are in process groups of their own,
//! so that Ctrl-C in a terminal reaches this process alone and the order of stopping stays ours.

mod backoff;
pub(crate) mod lifeline;
mod log;
mod powers;
mod tend;

use std::{collections::BTreeMap, ffi::OsString, fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

pub(crate) use log::{LogBook, LogMode};
pub(crate) use powers::{Capabilities, Powers};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// What people call it.
    pub(crate) name: String,
    /// Arguments of our own executable.
    pub(crate) arguments: Vec<OsString>,
    /// Whether it is started again when it ends by itself.
    pub(crate) restart: bool,
    /// What it may do beyond other processes.
    pub(crate) powers: Powers,
}

/// Where a child stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Started, not ready yet.
    Starting,
    /// It said so itself, and its health port agrees if it has one.
    Ready,
    /// It ended by itself.
    Exited {
        /// Its exit status or why it could not be started.
        how: String,
        /// When it is started again, if it is.
        restart_in: Option<Duration>,
    },
    /// It ended because we asked it to.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(formatter, "starting"),
            Self::Ready => write!(formatter, "ready"),
            Self::Stopped => write!(formatter, "stopped"),
            Self::Exited { how, restart_in: None } => write!(formatter, "exited ({how})"),
            Self::Exited { how, restart_in: Some(wait) } => {
                write!(formatter, "exited ({how}), again in {:.1} s", wait.as_secs_f64())
            }
        }
    }
}

/// What is known of one child.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// Where it stands.
    pub(crate) state: State,
    /// Its process id while it runs.
    pub(crate) pid: Option<Pid>,
    /// What its ready line said: the addresses that it got.
    pub(crate) ready: Value,
}

impl Status {
    /// An address of the ready line: `admin`, `outbound_http`.
    pub(crate) fn address(&self, key: &str) -> Option<SocketAddr> {
        self.ready.get(key)?.as_str()?.parse().ok()
    }
}

/// All children by name.
pub(crate) type Board = BTreeMap<String, Status>;

/// How a child is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    NotYet,
    Within(Duration),
    Now,
}

/// Why children did not become ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// One ended.
    #[error("{name} {state}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        state: State,
    },
    /// The deadline passed.
    #[error("not ready within {} s: {}", deadline.as_secs(), names.join(", "))]
    Late {
        /// The deadline.
        deadline: Duration,
        /// Who is missing.
        names: Vec<String>,
    },
}

/// The children of this process.
pub(crate) struct Family {
    executable: PathBuf,
    board: watch::Sender<Board>,
    log: Arc<LogBook>,
    members: Vec<Member>,
}

struct Member {
    name: String,
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

impl Family {
    /// A family without members. To be made, and its members started, on a current-thread runtime that lives on the
    /// main thread: the kernel ties the children's lives to the thread that started them.
    pub(crate) fn new(log: LogMode) -> io::Result<Self> {
        let executable = std::env::current_exe()?;
        let (board, _) = watch::channel(Board::new());
        Ok(Self { executable, board, log: Arc::new(LogBook::new(log)), members: Vec::new() })
    }

    /// Starts a child and tends it until it is stopped.
    pub(crate) fn start(&mut self, spec: Spec) {
        let (stop, stopping) = watch::channel(Stop::NotYet);
        let name = spec.name.clone();
        let parts = tend::Tended {
            spec,
            executable: self.executable.clone(),
            board: self.board.clone(),
            log: Arc::clone(&self.log),
        };
        self.members.push(Member { name, stop, task: tokio::spawn(tend::tend(parts, stopping)) });
    }

    /// Follows what becomes of all children.
    pub(crate) fn watch(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// What is known of one child.
    pub(crate) fn status(&self, name: &str) -> Option<Status> {
        self.board.borrow().get(name).cloned()
    }

    /// The end of a child's log.
    pub(crate) fn log_of(&self, name: &str) -> Vec<String> {
        self.log.last(name)
    }

    /// Waits until all children that were started are ready.
    ///
    /// # Errors
    /// When one has ended for good, or the deadline passes.
    pub(crate) async fn ready(&self, deadline: Duration) -> Result<(), NotReady> {
        let mut board = self.board.subscribe();
        let all_ready = async {
            loop {
                let news = board.borrow_and_update().clone();
                if let Some((name, status)) = news.iter().find(|(_, status)| is_over(&status.state)) {
                    return Err(NotReady::Ended { name: name.clone(), state: status.state.clone() });
                }
                if self.missing(&news).is_empty() || board.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        match timeout(deadline, all_ready).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let names = self.missing(&self.board.borrow());
                Err(NotReady::Late { deadline, names })
            }
        }
    }

    fn missing(&self, board: &Board) -> Vec<String> {
        let ready = |name: &str| board.get(name).is_some_and(|status| status.state == State::Ready);
        let names = self.members.iter().map(|member| &member.name);
        names.filter(|name| !ready(name)).cloned().collect()
    }

    /// Kills a child from outside (SIGKILL), as an accident would: it is found out like any other exit.
    pub(crate) fn kill(&self, name: &str) -> nix::Result<()> {
        let pid = self.status(name).and_then(|status| status.pid).ok_or(nix::Error::ESRCH)?;
        kill(pid, Signal::SIGKILL)
    }

    /// Asks the named children to stop, and forgets them once they have.
    pub(crate) async fn stop(&mut self, names: &[String], grace: Duration) {
        let (going, staying) =
            std::mem::take(&mut self.members).into_iter().partition(|member| names.contains(&member.name));
        self.members = staying;
        stop_members(going, grace).await;
        self.board.send_modify(|board| board.retain(|name, _| !names.contains(name)));
    }

    /// Asks all children to stop, the youngest generation (those that are not in `last`) first.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest running; [`Family::stop_now`] ends them.
    pub(crate) async fn stop_all(&mut self, last: &str, grace: Duration) {
        let (elders, young) =
            std::mem::take(&mut self.members).into_iter().partition::<Vec<_>, _>(|member| member.name == last);
        stop_members(young, grace).await;
        stop_members(elders, grace).await;
    }

    /// The switch that kills all children at once, for whoever does not want to wait for [`Family::stop_all`].
    pub(crate) fn stop_now(&self) -> impl Fn() + use<> {
        let switches: Vec<_> = self.members.iter().map(|member| member.stop.clone()).collect();
        move || {
            for switch in &switches {
                switch.send_replace(Stop::Now);
            }
        }
    }
}

fn is_over(state: &State) -> bool {
    matches!(state, State::Exited { restart_in: None, .. } | State::Stopped)
}

async fn stop_members(members: Vec<Member>, grace: Duration) {
    for member in &members {
        member.stop.send_if_modified(|stop| {
            let first = *stop == Stop::NotYet;
            if first {
                *stop = Stop::Within(grace);
            }
            first
        });
    }
    for member in members {
        // A task that panicked has dropped its child, which kills it.
        let _ended = member.task.await;
    }
}
