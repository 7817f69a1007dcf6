//! `pillion run --name NAME -- COMMAND`: an unmodified program as a workload of this machine's mesh.
//!
//! ```text
//! pillion run            user namespace of its own when it is not root; the machine's network
//!  ├─ thread             the program's network namespace: what it starts is in there
//!  │   └─ COMMAND        (through `pillion launch`, which becomes it)
//!  ├─ sidecar            the machine's network, with listeners in the program's
//!  ├─ control plane      if no other program of this home runs it
//!  └─ keeper             cleans up when we are killed
//! ```
//!
//! Redirect rules come after the listeners that they lead to, the program after both; the sidecar ends after the program.

mod control_plane;
mod home;
pub(crate) mod keeper;
pub(crate) mod launch;
mod log;
mod namespaces;
mod ports;
mod processes;
mod register;
mod sidecar;
mod signals;

use std::{
    ffi::OsString,
    fs::File,
    io::{IsTerminal as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    pin::{Pin, pin},
    process::{Child, Command, ExitCode, ExitStatus},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use nix::{
    sys::{
        signal::kill,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use pillion_wire::label::is_label;
use tokio::{sync::oneshot, task::spawn_blocking, time::interval};

use crate::child::{LogMode, lifeline};
use control_plane::ControlPlane;
use home::Home;
use keeper::Keeper;
use log::Log;
use namespaces::{Network, administer};
use ports::Port;
use processes::NamespaceId;
use register::Entry;
use sidecar::{Sidecar, TOKEN_RENEWAL};
use signals::{Blocked, Received, Signals};

/// What `env`, `nohup` and `timeout` say of their own failures.
const OUR_FAILURE: u8 = 125;
/// What shells add to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;

pub(super) const HELP: &str = "\
A program in the mesh

  pillion run --name hello --port 8080 -- python3 -m http.server 8080
  pillion run --name client -- curl http://hello:8080/

The program runs unchanged in a network namespace of its own, where all its TCP connections and DNS queries go through a
sidecar. It reaches other programs by NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local, in mutual TLS of which it
knows nothing, and everything else (the Internet) as before. Several programs of one name share its load. All programs
of one home (--home) are one mesh; put routes and other documents into its documents/ folder.

No root is needed where unprivileged user namespaces are allowed; else it says what is missing. `ip` (iproute2) and `nft`
(nftables) must be installed.

Standard input, output, error and the terminal are the program's own. Its status is ours: 128 and the signal's number
when it died of one; 125 when pillion itself failed, 126 and 127 when the command cannot be run or found. SIGTERM, SIGHUP,
SIGINT, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are passed on. When the program ends, or pillion is killed, all that it
started ends too.

What is different inside
  - 127.0.0.1 is the program's own: services of this machine are not there. Run them with pillion as well, or let them
    listen on another address of the machine, which the program reaches as usual.
  - UDP other than DNS and ICMP (ping) go nowhere.
  - Names are resolved by files and DNS. nscd and systemd-resolved are hidden from the C library, since they ask from
    outside; a program that asks another one over D-Bus, or a DNS server over HTTPS or TLS, does not see the mesh.
  - Without root, programs that change the user (sudo, su) do not work.";

/// Settings of `pillion run --name`.
#[derive(Debug, Args)]
#[command(next_help_heading = "A program")]
pub(super) struct Program {
    /// Name of the program in the mesh: its Service, its service account, its label `app`.
    #[arg(long, requires = "command")]
    name: Option<String>,
    /// A port on which the program listens, on any address of its own. Callers dial SERVICE_PORT (default: the same).
    /// PROTOCOL: http, h2c, grpc, tcp, tls (default: detected). May be repeated, and left out for pure clients.
    #[arg(long = "port", value_name = "[SERVICE_PORT:]PORT[/PROTOCOL]", requires = "name")]
    ports: Vec<Port>,
    /// The program's namespace in the mesh.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Folder of the mesh: its documents, keys and logs. Default: $XDG_RUNTIME_DIR/pillion, else /tmp/pillion-UID.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Show what happens, and the logs of sidecar and control plane, on standard error.
    #[arg(long, short)]
    verbose: bool,
    /// The program and its arguments.
    #[arg(last = true, value_name = "COMMAND", requires = "name")]
    command: Vec<OsString>,
}

impl Program {
    /// Whether a program is to be run.
    pub(super) const fn is_given(&self) -> bool {
        self.name.is_some()
    }
}

/// Runs the program until it ends; its status is ours.
pub(super) fn run(settings: Program, grace: Duration) -> ExitCode {
    match start(settings, grace) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn complain(error: &anyhow::Error) {
    let _closed = writeln!(std::io::stderr(), "pillion: {error:#}");
}

/// All that must happen while there is one thread only, then the rest.
fn start(settings: Program, grace: Duration) -> anyhow::Result<u8> {
    let name = settings.name.clone().unwrap_or_default();
    for (what, text) in [("--name", &name), ("--namespace", &settings.namespace)] {
        ensure!(is_label(text), "{what} `{text}` is not a DNS label: lower-case letters, digits and -, at most 63");
    }
    for (position, port) in settings.ports.iter().enumerate() {
        let twice = settings.ports.iter().skip(position + 1).any(|other| other.service == port.service);
        ensure!(!twice, "--port {} is there twice", port.service);
    }
    let blocked = Blocked::block().context("cannot block signals")?;
    namespaces::become_capable()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(Box::pin(serve(&settings, &name, grace, &blocked)));
    runtime.shutdown_background();
    outcome
}

/// From an empty home to an empty home.
async fn serve(settings: &Program, name: &str, grace: Duration, blocked: &Blocked) -> anyhow::Result<u8> {
    let mut signals = blocked.receive().context("cannot listen for signals")?;
    let home = Home::open(settings.home.as_deref())?;
    let network = Arc::new(Network::make()?);
    let entry = register::enter(&home, &settings.namespace, name, &settings.ports)?;
    let keeper = Keeper::start(&home, &network.file)?;
    let log = if settings.verbose { None } else { Some(Log::open(&home, &entry.record)?) };
    let mode = log.as_ref().map_or(LogMode::Show, Log::mode);
    let mut control_plane = ControlPlane::new(&home, mode.clone())?;
    let mut sidecar = Sidecar::new(mode)?;
    let parts = Parts { settings, home: &home, network: &network, entry: &entry, grace, blocked };
    let outcome = parts.live(&mut sidecar, &mut signals, pin!(control_plane.run())).await;
    // Whatever fails from here on, the rest is done too.
    let left = register::leave(&home, &entry.record);
    let ended = parts.end_the_rest(&mut signals).await;
    // It drains for as long as it may, and a little longer until it is killed.
    sidecar.stop(grace + Duration::from_secs(2)).await;
    control_plane.stop().await;
    let dismissed = keeper.dismiss().context("lost sight of the process that cleans up after us");
    for trouble in [left, ended, dismissed].into_iter().filter_map(Result::err) {
        complain(&trouble);
    }
    with_log(outcome, log.as_ref())
}

/// What the life of a program needs.
struct Parts<'a> {
    settings: &'a Program,
    home: &'a Home,
    network: &'a Arc<Network>,
    entry: &'a Entry,
    grace: Duration,
    blocked: &'a Blocked,
}

impl Parts<'_> {
    /// Starts everything in order, then waits for the program's end and passes signals on to it.
    async fn live(
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
                received = signals.next() => pass_on(received, pid, alone)?,
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
    async fn end_the_rest(&self, signals: &mut Signals) -> anyhow::Result<()> {
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

/// Everything but 127.0.0.0/8 and ::1, and of the former the mesh's addresses: named, since everything leaves through the
/// loopback interface in there, and what does is otherwise left alone.
const ELSEWHERE: &str = "127.77.0.0/16,0.0.0.0/2,64.0.0.0/3,96.0.0.0/4,112.0.0.0/5,120.0.0.0/6,124.0.0.0/7,126.0.0.0/8,\
    128.0.0.0/1,2000::/3,fc00::/7,64:ff9b::/96";
/// The sidecar is known by its mark; it has the user of the program.
const NOBODY: &str = "4294967294";

/// Makes the rules: from now on connections go through the sidecar.
fn redirect() -> anyhow::Result<()> {
    let executable = std::env::current_exe().context("cannot find our own executable")?;
    let executable = executable.to_str().context("our own executable's path is not text")?;
    let arguments = ["proxy", "init", "--capture-dns", "--uid", NOBODY, "--mark", "1337", "--include-cidrs", ELSEWHERE];
    administer(executable, &arguments, "").context("cannot redirect the program's connections")
}

/// Passes a signal on, unless the terminal has sent it to the program as well.
fn pass_on(received: Received, program: Pid, alone: bool) -> anyhow::Result<()> {
    if received.from_terminal && !alone {
        return Ok(());
    }
    // It is not waited for yet, so the number is still its own.
    kill(program, received.signal).with_context(|| format!("cannot pass {} on to the program", received.signal))
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

/// What `live` returned, with the end of the log when nobody saw that.
fn with_log<T>(outcome: anyhow::Result<T>, log: Option<&Log>) -> anyhow::Result<T> {
    outcome.map_err(|error| match log {
        Some(log) => error.context(format!("see {}; its end:\n{}\n", log.path().display(), log.tail())),
        None => error,
    })
}
