//! The life of one program: everything started in order, then the wait for its end.

use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    pin::{Pin, pin},
    process::{Child, Command, ExitStatus},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::{sync::oneshot, task::spawn_blocking, time::interval};

use super::{
    OUR_FAILURE, Program, complain, control_plane,
    home::Home,
    namespaces::{Network, administer},
    processes::{self, NamespaceId},
    register::{self, Entry},
    sidecar::{self, Sidecar, TOKEN_RENEWAL},
    signals::{Blocked, Received, Signals},
};
use crate::child::lifeline;

/// What shells add to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;
/// Everything but 127.0.0.0/8 and ::1, and of the former the mesh's addresses: named, since everything leaves through the
/// loopback interface in there, and what does is otherwise left alone.
const ELSEWHERE: &str = "127.77.0.0/16,0.0.0.0/2,64.0.0.0/3,96.0.0.0/4,112.0.0.0/5,120.0.0.0/6,124.0.0.0/7,126.0.0.0/8,\
    128.0.0.0/1,2000::/3,fc00::/7,64:ff9b::/96";
/// The sidecar is known by its mark; it has the user of the program.
const NOBODY: &str = "4294967294";

/// What the life of a program needs.
pub(super) struct Life<'a> {
    pub(super) settings: &'a Program,
    pub(super) home: &'a Home,
    pub(super) network: &'a Arc<Network>,
    pub(super) entry: &'a Entry,
    pub(super) grace: Duration,
    pub(super) blocked: &'a Blocked,
}

impl Life<'_> {
    /// Starts everything in order, then waits for the program's end and passes signals on to it.
    pub(super) async fn live(
        &self,
        sidecar: &mut Sidecar,
        signals: &mut Signals,
        mut control_plane: Pin<&mut impl Future<Output = anyhow::Error>>,
    ) -> anyhow::Result<u8> {
        let (program, alone) = tokio::select! {
            program = self.begin(sidecar) => program?,
            error = &mut control_plane => return Err(error),
            // As if the signal had ended the program.
            signal = signals.end() => return Ok(shell_status(ExitStatus::from_raw(signal as i32))),
        };
        let mut attended = pin!(self.attend(program, alone, signals));
        tokio::select! {
            status = &mut attended => return status,
            error = control_plane => complain(&error),
        }
        // The program goes on with what its sidecar knows; another one may run the control plane.
        attended.await
    }

    async fn begin(&self, sidecar: &mut Sidecar) -> anyhow::Result<(Child, bool)> {
        let record = &self.entry.record;
        self.network.connect(record.address).await?;
        let control_plane = control_plane::serving(self.home).await?;
        self.say(format_args!("control plane at {}", control_plane.listen));
        register::publish(self.home, record)?;
        sidecar.start(self.home, record, &self.network.file, control_plane, self.grace).await?;
        self.network.inside(redirect).await?;
        let admin =
            sidecar.admin().map(|admin| format!(", its sidecar's pages at http://{admin}/")).unwrap_or_default();
        self.say(format_args!("{} is {}{admin}", record.workload(), record.address));
        self.spawn().await
    }

    /// Starts the program. Where there is a terminal it stays in our process group, so that it is in the foreground when
    /// we are; else it gets a group of its own, so that a signal to our group reaches it once, through us.
    async fn spawn(&self) -> anyhow::Result<(Child, bool)> {
        let alone = File::open("/dev/tty").is_err();
        let mut command = Command::new(std::env::current_exe().context("cannot find our own executable")?);
        command.arg("launch");
        for signal in self.blocked.before() {
            command.arg("--blocked").arg(signal.to_string());
        }
        if alone {
            command.arg("--own-group");
        }
        command.arg("--").args(&self.settings.command);
        lifeline::tie(&mut command);
        let started = self.network.inside(move || command.spawn().context("cannot start the program"));
        Ok((started.await?, alone))
    }

    async fn attend(&self, mut program: Child, alone: bool, signals: &mut Signals) -> anyhow::Result<u8> {
        let pid = Pid::from_raw(i32::try_from(program.id()).context("not a process id")?);
        let mut ended = until_ended(pid)?;
        let mut tokens = interval(TOKEN_RENEWAL);
        loop {
            tokio::select! {
                ended = &mut ended => {
                    ended.context("the thread ended")?.context("lost sight of the program")?;
                    return Ok(shell_status(program.wait().context("lost sight of the program")?));
                }
                received = signals.next() => pass_on(received, pid, alone),
                _ = tokens.tick() => {
                    // The sidecar needs it only when it is started again, and it is tried again.
                    if let Err(error) = sidecar::write_token(self.home, &self.entry.record) {
                        complain(&error);
                    }
                }
            }
        }
    }

    /// Ends what the program left running: its network goes. Another signal ends it at once.
    pub(super) async fn end_the_rest(&self, signals: &mut Signals) -> anyhow::Result<()> {
        let namespace = NamespaceId::of(&self.network.file)?;
        let grace = self.grace;
        // What came before the program's end was for the program.
        signals.forget();
        tokio::select! {
            ended = spawn_blocking(move || processes::end(namespace, grace)) => ended.context("the thread ended"),
            _again = signals.end() => {
                spawn_blocking(move || processes::end(namespace, Duration::ZERO)).await.context("the thread ended")
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        let mut stderr = std::io::stderr();
        if self.settings.verbose || stderr.is_terminal() {
            let _closed = writeln!(stderr, "pillion: {what}");
        }
    }
}

/// Makes the rules: from now on connections go through the sidecar.
fn redirect() -> anyhow::Result<()> {
    let executable = std::env::current_exe().context("cannot find our own executable")?;
    let executable = executable.to_str().context("our own executable's path is not text")?;
    let arguments = ["proxy", "init", "--capture-dns", "--uid", NOBODY, "--mark", "1337", "--include-cidrs", ELSEWHERE];
    administer(executable, &arguments, "").context("cannot redirect the program's connections")
}

/// Passes a signal on, unless a key in the terminal has sent it to the program as well. The terminal's end is told to
/// the session's first process alone, which may be us.
fn pass_on(received: Received, program: Pid, alone: bool) {
    if received.from_terminal && received.signal != Signal::SIGHUP && !alone {
        return;
    }
    // It is not waited for yet, so the number is still its own.
    if let Err(error) = kill(program, received.signal) {
        complain(&anyhow!("cannot pass {} on to the program: {error}", received.signal));
    }
}

/// Says when the process has ended, and leaves it to be waited for.
fn until_ended(pid: Pid) -> anyhow::Result<oneshot::Receiver<nix::Result<()>>> {
    let (ended, outcome) = oneshot::channel();
    thread::Builder::new().name("program".to_owned()).spawn(move || {
        let waited = loop {
            match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(nix::Error::EINTR) => {}
                other => break other.map(drop),
            }
        };
        let _unheard = ended.send(waited);
    })?;
    Ok(outcome)
}

/// The status as shells say it.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(OUR_FAILURE)
}
