//! `pillion run --name NAME -- COMMAND`: an unmodified program as a workload of this machine's mesh, without root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::support::{Process, eventually, output, pillion, python_json, tool, until};

/// A user without any rights.
const NOBODY: u32 = 65534;

#[test]
fn the_programs_status_input_and_output_are_its_own() {
    let home = Home::unprivileged();
    for (command, status) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["there-is-no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let ended = output(&mut home.run(&["--name", "short"], command));
        assert_eq!(ended.status.code(), Some(status), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "", "{command:?}");
    }
    let mut copy = home.run(
        &["--name", "copy", "--port", "80:8080"],
        &["sh", "-c", "cat; id -u; grep -c '^Cap.*:.*[1-9a-f]' /proc/self/status"],
    );
    let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut copy.stdin.take().unwrap(), b"all of it\n").unwrap();
    let ended = copy.wait_with_output().unwrap();
    // One line of capabilities is not zero: the bounding set, which gives nothing.
    assert_eq!(String::from_utf8_lossy(&ended.stdout), format!("all of it\n{}\n1\n", home.uid()));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "silent without a terminal");
    assert_eq!(home.left(), Vec::<String>::new());
}

#[test]
fn signals_reach_the_program_once() {
    let home = Home::unprivileged();
    let passed_on = ["TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "WINCH"];
    let traps: String = passed_on.iter().map(|name| format!("trap 'echo {name}' {name}; ")).collect();
    let script =
        format!("{traps} echo ready; while [ ! -e {0} ]; do sleep 0.02; done; exit 3", home.file("end").display());
    let mut program = Process::spawn("run", &mut home.run(&["--name", "signals"], &["sh", "-c", &script]));
    until("the program runs", || program.stdout().contains("ready"));
    for name in passed_on {
        program.signal(format!("SIG{name}").parse().unwrap());
        until(name, || program.stdout().lines().any(|line| line == name));
    }
    fs::write(home.file("end"), "").unwrap();
    assert_eq!(program.wait().code(), Some(3));
    assert_eq!(program.stdout(), format!("ready\n{}\n", passed_on.join("\n")), "each once");
}

#[test]
fn the_terminal_is_the_programs_own() {
    let home = Home::new();
    let script = "import os, signal, sys, time\n\
         count = []\n\
         signal.signal(signal.SIGINT, lambda *_: count.append(1))\n\
         print('ready', os.isatty(0), os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n\
         while not count: time.sleep(0.01)\n\
         time.sleep(0.2)\n\
         print('interrupted', len(count), flush=True)\n\
         sys.exit(4)";
    let run = home.run(&["--name", "terminal"], &["python3", "-c", script]);
    let mut argv = vec![run.get_program().to_str().unwrap()];
    argv.extend(run.get_args().map(|argument| argument.to_str().unwrap()));
    let seen =
        python_json("terminal.py", &serde_json::json!({ "argv": argv, "after": "ready True True", "type": "\u{3}" }));
    let text = seen["output"].as_str().unwrap();
    assert!(text.contains("ready True True") && text.contains("interrupted 1"), "{seen}");
    assert_eq!(seen["status"], 4, "{seen}");
}

#[test]
fn two_programs_call_each_other_by_name_in_mutual_tls() {
    let home = Home::unprivileged();
    let hello = home.nginx("hello", "8080", "return 200 \"hello $http_x_forwarded_client_cert\\n\";");
    // The very first thing that curl does is the call.
    for host in ["hello", "hello.default", "hello.default.svc.cluster.local"] {
        let said = home.curl("client", &[&format!("http://{host}:8080/")]);
        assert!(
            said.starts_with("hello ") && said.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
            "{said}"
        );
    }
    let metrics = output(Command::new(tool("curl", "curl")).args(["-s", &format!("{}metrics", pages(&hello))]));
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let peer = "peer=\"spiffe://cluster.local/ns/default/sa/client\",tls=\"mutual\",status=\"200\"";
    assert!(metrics.lines().any(|line| line.contains("direction=\"inbound\"") && line.contains(peer)), "{metrics}");
}

#[test]
fn programs_of_other_namespaces_are_called_by_both_names() {
    let home = Home::unprivileged();
    let mut command = home.run(&["--name", "web", "--namespace", "shop", "--port", "80:8080/http", "-v"], &[]);
    command.args(nginx_command(&home, "web", "8080", "return 200 \"web\\n\";"));
    let web = Process::spawn("web", &mut command);
    until("it is there", || web.log().contains("pages at"));
    assert_eq!(home.curl("client", &["http://web.shop/"]), "web\n");
}

#[test]
fn replicas_share_the_load_and_one_may_go() {
    let home = Home::unprivileged();
    let mut first = home.nginx("first", "80:8081", "return 200 \"first\\n\";");
    let _second = home.nginx("second", "80:8082", "return 200 \"second\\n\";");
    let call = "for i in 1 2 3 4 5 6 7 8 9 10; do curl -sS --max-time 10 http://pair/; done";
    let who = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let both = who(home.out("client", &["sh", "-c", call]));
    assert_eq!(both, BTreeSet::from(["first".to_owned(), "second".to_owned()]));
    first.terminate();
    assert_eq!(who(home.out("client", &["sh", "-c", call])), BTreeSet::from(["second".to_owned()]));
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    let home = Home::unprivileged();
    let script =
        format!("(setsid sleep 1000 &); readlink /proc/self/ns/net > {}; sleep 1000", home.file("net").display());
    let mut run = Process::spawn("run", &mut home.run(&["--name", "victim", "--port", "8080"], &["sh", "-c", &script]));
    let network = eventually("the program runs", std::time::Duration::from_secs(30), || {
        fs::read_to_string(home.file("net")).ok().filter(|text| text.ends_with('\n'))
    });
    let network = network.trim();
    until("its descendants run", || processes_in(network).len() >= 3);
    assert_eq!(home.left().len(), 2, "a Workload and a Service: {:?}", home.left());
    run.kill();
    until("the program and its descendants are gone", || processes_in(network).is_empty());
    until("sidecar, control plane and keeper are gone", || home.processes().is_empty());
    assert_eq!(home.left(), Vec::<String>::new());
}

#[test]
fn descendants_end_with_the_program() {
    let home = Home::unprivileged();
    let text = home.out("parent", &["sh", "-c", "sleep 1000 >&- 2>&- & echo $!; setsid sleep 1000 >&- 2>&- & echo $!"]);
    let pids: Vec<&str> = text.lines().collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| !is_alive(pid)), "they are gone when pillion is: {pids:?}");
    assert!(home.processes().is_empty());
}

#[test]
fn another_program_takes_over_the_control_plane() {
    let home = Home::unprivileged();
    let mut holder = Process::spawn("holder", &mut home.run(&["--name", "holder", "-v"], &["sleep", "1000"]));
    until("the first one runs", || holder.log().contains("pages at"));
    let go = home.file("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; exec curl -sS http://late:8080/", go.display());
    let mut waiting = Process::spawn("waiting", &mut home.run(&["--name", "waiting", "-v"], &["sh", "-c", &script]));
    until("the second one runs", || waiting.log().contains("pages at"));
    holder.kill();
    // Its documents and its sidecar's certificate can only come from a control plane that runs.
    let _late = home.nginx("late", "8080", "return 200 \"late\\n\";");
    fs::write(go, "").unwrap();
    assert_eq!(waiting.wait().code(), Some(0));
    assert_eq!(waiting.stdout(), "late\n");
}

#[test]
fn as_root_it_needs_no_user_namespace() {
    let home = Home::new();
    let _hello = home.nginx("hello", "8080", "return 200 \"hello\\n\";");
    assert_eq!(home.curl("client", &["http://hello:8080/"]), "hello\n");
}

#[test]
fn mistakes_are_explained() {
    let said = |command: &mut Command| {
        let ended = output(command);
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (status, text) = said(pillion().arg("run"));
    assert!(status == Some(2) && text.contains("pillion run --name client -- curl http://hello:8080/"), "{text}");

    let home = Home::new();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (status, text) = said(&mut home.run(&["--name", "a"], &["true"]));
    assert!(status == Some(125) && text.contains("chmod 700"), "{text}");

    // A place where nobody may make user namespaces, without touching the machine's own setting.
    let home = Home::new();
    let run = home.run(&["--name", "a"], &["true"]);
    let mut jailed = Command::new("unshare");
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    jailed.args(["-Ur", "sh", "-c", script, "sh"]).arg(run.get_program()).args(run.get_args());
    let (status, text) = said(&mut jailed);
    assert!(status == Some(125) && text.contains("sysctl -w user.max_user_namespaces"), "{text}");
}

#[test]
fn programs_of_one_name_must_agree_on_a_ports_protocol() {
    let home = Home::unprivileged();
    let first = home.run(&["--name", "db", "--port", "5432/tcp", "-v"], &["sleep", "1000"]);
    let first = Process::spawn("first", &mut { first });
    until("it runs", || first.log().contains("pages at"));
    let second = output(&mut home.run(&["--name", "db", "--port", "5432/http"], &["true"]));
    assert_eq!(second.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&second.stderr).contains("port 5432 has the protocol tcp"), "{second:?}");
}

/// A home for the programs of one test, and whose it is.
struct Home {
    folder: TempDir,
    unprivileged: bool,
}

impl Home {
    /// Programs run as we do: as root, in CI.
    fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap(), unprivileged: false };
        home.prepare();
        home
    }

    /// Programs run as a user without any rights.
    fn unprivileged() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap(), unprivileged: geteuid().is_root() };
        home.prepare();
        home
    }

    fn prepare(&self) {
        fs::create_dir(self.path()).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o700)).unwrap();
        // The workspace may be where others may not look.
        let (from, to) = (pillion().get_program().to_owned(), self.file("pillion"));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap();
        }
        if self.unprivileged {
            for path in [self.folder.path(), &self.path()] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.file("home")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn uid(&self) -> u32 {
        if self.unprivileged { NOBODY } else { geteuid().as_raw() }
    }

    /// `pillion run` with these arguments and this command.
    fn run(&self, arguments: &[&str], command: &[&str]) -> Command {
        let program = self.file("pillion");
        let mut run = if self.unprivileged {
            let mut run = Command::new(tool("setpriv", "util-linux"));
            run.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]).arg(program);
            run
        } else {
            Command::new(program)
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILLION_")) {
            run.env_remove(name);
        }
        run.arg("run").arg("--home").arg(self.path()).args(arguments).arg("--").args(command);
        run.current_dir(self.folder.path()).stdin(Stdio::null());
        run
    }

    /// What a program that runs to its end writes.
    fn out(&self, name: &str, command: &[&str]) -> String {
        let ended = output(&mut self.run(&["--name", name], command));
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{command:?}: {ended:?}");
        text
    }

    /// What curl gets, as a program of the mesh.
    fn curl(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = vec!["curl", "-sS", "--max-time", "20"];
        command.extend(arguments);
        self.out(name, &command)
    }

    /// nginx as a program of the mesh: `first` and `second` are both called `pair`.
    fn nginx(&self, name: &str, port: &str, answer: &str) -> Process {
        let service = if matches!(name, "first" | "second") { "pair" } else { name };
        let mut command = self.run(&["--name", service, "--port", port, "-v"], &[]);
        command.args(nginx_command(self, name, port.rsplit(':').next().unwrap(), answer));
        let process = Process::spawn(name, &mut command);
        until("nginx listens", || fs::read_to_string(self.file(name).join("pid")).is_ok_and(|pid| !pid.is_empty()));
        process
    }

    /// Documents of programs.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.path().join("documents/run")).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Processes of ours that have to do with this home.
    fn processes(&self) -> Vec<String> {
        let home = self.path();
        let command_line = |pid: &String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let of_home = |pid: &String| String::from_utf8_lossy(&command_line(pid)).contains(home.to_str().unwrap());
        pids().into_iter().filter(|pid| is_alive(pid) && of_home(pid)).collect()
    }
}

/// nginx in the foreground, with its files in a folder of the home.
fn nginx_command(home: &Home, name: &str, port: &str, answer: &str) -> Vec<String> {
    let folder = home.file(name);
    fs::create_dir(&folder).unwrap();
    let at = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{ access_log off;\n{paths}server {{ listen {port}; location / {{ {answer} }} }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    if home.unprivileged {
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let nginx = tool("nginx", "nginx-light").display().to_string();
    [&nginx, "-e", "stderr", "-c", &format!("{at}/nginx.conf")].map(str::to_owned).to_vec()
}

/// Where the sidecar's pages are, as `-v` says.
fn pages(run: &Process) -> String {
    let log = run.log();
    log.lines().find_map(|line| line.split_once("pages at ")).unwrap().1.to_owned()
}

fn pids() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Those in a network namespace, by its name in `/proc`.
fn processes_in(network: &str) -> Vec<String> {
    let is_in =
        |pid: &String| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == Path::new(network));
    pids().into_iter().filter(|pid| is_alive(pid) && is_in(pid)).collect()
}

/// A process that nobody has waited for yet is not.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
