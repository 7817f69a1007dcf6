//! Other people's programs: found, run, and what they said when they fail.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Failure;

/// Where administrators' programs are when `PATH` does not say so.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// One program to run. Printed as a line of shell.
#[derive(Clone, Debug)]
pub(super) struct Step {
    program: PathBuf,
    arguments: Vec<String>,
    input: Option<String>,
}

impl Step {
    pub(super) fn new(program: PathBuf, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { program, arguments: arguments.into_iter().map(Into::into).collect(), input: None }
    }

    /// With this on its standard input.
    pub(super) fn with_input(self, input: String) -> Self {
        Self { input: Some(input), ..self }
    }

    /// Runs it to its end, and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started or ends with an error.
    pub(super) fn run(&self) -> Result<String, Failure> {
        let failed = |source| Failure::Start { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), &self.input) {
            // One that stops reading says why when it ends.
            let _closed = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::Status { command: self.command(), status: output.status, stderr })
    }

    fn command(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        std::iter::once(&*name).chain(self.arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => write!(f, "{} <<'END'\n{input}END", self.command()),
            None => f.write_str(&self.command()),
        }
    }
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a program only for what it says; nothing when it fails.
pub(super) fn ask(program: &Path, arguments: &[&str]) -> Option<String> {
    Step::new(program.to_owned(), arguments.iter().copied()).run().ok()
}
