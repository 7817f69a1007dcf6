//! Programs that we did not write: found, or the test fails with the command that installs them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::mesh::Mesh;
use super::process::{Process, in_workspace};
use super::wait::until;

/// What curl got.
#[derive(Debug, Clone)]
pub struct Curl {
    /// curl's own exit code: 0, or e.g. 7 (refused), 28 (timed out), 52 (empty reply), 56 (reset).
    pub exit: i32,
    /// The last response's status, 0 without one.
    pub status: u16,
    /// The last response's head, as received.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    /// curl's own message.
    pub message: String,
}

impl Curl {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
    }

    /// The reason code that a proxy of the mesh gave, "" without one.
    pub fn reason(&self) -> &str {
        self.header("x-pillion-reason").unwrap_or_default()
    }
}

/// Runs curl, silent, for at most 30 seconds, without a proxy of the environment.
pub fn curl(arguments: &[&str]) -> Curl {
    run_curl(arguments, None)
}

/// The same, run by another command that is made of it: in a network namespace.
pub fn curl_of(arguments: &[&str], wrap: impl Fn(&Command) -> Command) -> Curl {
    run_curl(arguments, Some(&wrap))
}

fn run_curl(arguments: &[&str], wrap: Option<&dyn Fn(&Command) -> Command>) -> Curl {
    let folder = tempfile::tempdir().expect("a folder");
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let mut command = Command::new(tool("curl", "curl"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.args(["--silent", "--show-error", "--max-time", "30", "--dump-header"]).arg(&head);
    command.arg("--output").arg(&body).args(arguments);
    if let Some(wrap) = wrap {
        // It may be run by another user, who has to write its results.
        for path in [folder.path(), &head, &body] {
            let _made = fs::OpenOptions::new().create(true).append(true).open(path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("our file");
        }
        command = wrap(&command);
    }
    let output = command.output().expect("curl runs");
    let heads = String::from_utf8_lossy(&fs::read(&head).unwrap_or_default()).into_owned();
    let last = heads.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    Curl {
        exit: output.status.code().unwrap_or(-1),
        status: last.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0),
        head: last,
        body: fs::read(&body).unwrap_or_default(),
        message: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Where a program is.
///
/// # Panics
/// With the command that installs it, when it is missing.
pub fn tool(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing: apt-get install {package} (or run tests/run)"))
}

/// The Python with grpcio, websockets, hypercorn and h2.
pub fn python() -> Command {
    let python = in_workspace(".test-tools/venv/bin/python");
    assert!(python.is_file(), "{} is missing: run tests/run, which makes it", python.display());
    let mut command = Command::new(python);
    command.env("PYTHONUNBUFFERED", "1");
    command
}

/// An application outside our control.
pub struct App {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Starts `tests/e2e/apps/NAME` with these arguments. It must print one JSON line with `listen` once it listens; it is
/// told the address to bind (port 0) as its first argument.
pub fn python_app(mesh: &Mesh, name: &str, arguments: &[&str]) -> App {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps").join(name));
    command.arg(SocketAddr::new(mesh.ip(), 0).to_string()).args(arguments);
    let mut process = Process::spawn(name, &mut command);
    let ready = process.ready();
    let address = ready["listen"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    App { process, address }
}

/// Runs `tests/e2e/apps/NAME` to its end with one argument, JSON, and returns the JSON that it printed.
pub fn python_json(name: &str, argument: &serde_json::Value) -> serde_json::Value {
    let mut command = python();
    let output = run(command.arg(in_workspace("tests/e2e/apps").join(name)).arg(argument.to_string()));
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{name} printed {output:?}: {error}"))
}

/// Python's own file server, with one file `hello.txt` that says "hello".
pub fn python_files(mesh: &Mesh) -> App {
    let folder = mesh.scratch().join("files");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("hello.txt"), "hello\n").expect("a file");
    let mut command = python();
    command.args(["-m", "http.server", "0", "--protocol", "HTTP/1.1"]);
    command.args(["--bind", &mesh.ip().to_string(), "--directory"]).arg(folder);
    let mut process = Process::spawn("http.server", &mut command);
    let port = process.first_line("its port", |line| line.split_whitespace().nth(5)?.parse::<u16>().ok());
    App { process, address: SocketAddr::new(mesh.ip(), port) }
}

/// nginx with one `server` block of the test's (the body of it, without `listen`), on a free port.
pub fn nginx(mesh: &Mesh, server: &str) -> App {
    let address = mesh.free_address();
    let folder = mesh.scratch().join(format!("nginx-{}", address.port()));
    fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("nginx.conf");
    fs::write(&config, nginx_config(&folder, address, server)).expect("a file");
    let mut command = Command::new(tool("nginx", "nginx-light"));
    command.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&config);
    let process = Process::spawn("nginx", &mut command);
    until("nginx listens", || std::net::TcpStream::connect(address).is_ok());
    App { process, address }
}

/// Runs a command to its end and returns its standard output.
///
/// # Panics
/// When it does not end with status 0.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Runs a command to its end, however it ends.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

fn nginx_config(folder: &Path, address: SocketAddr, server: &str) -> String {
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n{paths}  default_type text/plain;\n\
           server {{\n    listen {address};\n{server}\n  }}\n}}\n"
    )
}
