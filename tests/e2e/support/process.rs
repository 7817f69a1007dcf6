//! A child process of a test: its two outputs go to files, it dies with its handle, and its log is shown when the test
//! fails.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::wait::eventually;

/// How much of a log is shown when the test fails: its end.
const SHOWN_LOG_BYTES: usize = 16 * 1024;
const READY_DEADLINE: Duration = Duration::from_secs(60);
const EXIT_DEADLINE: Duration = Duration::from_secs(90);

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    outputs: TempDir,
}

impl Process {
    /// Starts the command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let outputs = tempfile::tempdir().expect("a folder for outputs");
        let file = |name: &str| File::create(outputs.path().join(name)).expect("an output file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self { name: name.to_owned(), child, outputs }
    }

    /// Starts the `pillion` program with these arguments and without the settings of the caller's environment.
    pub fn pillion(name: &str, arguments: &[&str]) -> Self {
        Self::spawn(name, pillion().args(arguments))
    }

    /// Waits for the first JSON object on standard output: every program of the mesh, and every application of
    /// `tests/e2e/apps`, says there which addresses it got.
    pub fn ready(&mut self) -> Value {
        self.first_line("its ready line", |line| serde_json::from_str(line).ok())
    }

    /// Waits for a line of standard output that `parse` makes something of.
    pub fn first_line<T>(&mut self, what: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{}: {what}", self.name);
        eventually(&what, READY_DEADLINE, || {
            let found = self.stdout().lines().find_map(&parse);
            if found.is_none()
                && let Some(status) = self.exited()
            {
                panic!("{what}: it exited with {status}");
            }
            found
        })
    }

    /// Everything it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// Everything it logged (standard error) so far.
    pub fn log(&self) -> String {
        self.read("stderr")
    }

    /// The JSON objects of the log whose `event` is the given one: `access` for the access log.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let objects = self.log();
        let objects = objects.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.filter(|object| object["event"] == event).collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, when it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Memory in use now, in KiB (`VmRSS`).
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most memory ever in use, in KiB (`VmHWM`).
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.nix_pid(), signal).expect("a child of ours");
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, EXIT_DEADLINE, || self.exited())
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("running");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a memory line");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    fn read(&self, output: &str) -> String {
        let bytes = fs::read(self.outputs.path().join(output)).expect("an output file");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(SHOWN_LOG_BYTES);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            let mut stderr = std::io::stderr().lock();
            let _closed = writeln!(stderr, "==== log of {} ====\n{}", self.name, &log[from..]);
        }
    }
}

/// The `pillion` program under test, without the settings of the caller's environment.
pub fn pillion() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILLION_")) {
        command.env_remove(name);
    }
    command
}

/// A file of the workspace.
pub fn in_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
