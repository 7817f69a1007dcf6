//! Databases of three kinds, undeclared: Redis, whose client speaks first; PostgreSQL, whose client first asks for TLS;
//! MariaDB, whose server greets.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{World, detections, say, workload};
use crate::support::{APPLICATION, Pod, Process, Stack, run, tool, until};

const REDIS: u16 = 6379;
const POSTGRESQL: u16 = 5432;
const MARIADB: u16 = 3306;
/// Far below what a proxy that waits for one side would add, and far above what a client needs for itself.
const NO_STALL: Duration = Duration::from_secs(1);

#[test]
fn redis_postgresql_and_mariadb_answer_from_the_first_connection_on() {
    let world = World::start(Stack::V4);
    let ports = [REDIS, POSTGRESQL, MARIADB];
    world.service("databases", "10.96.0.10", &ports.map(|port| (port, port, "")));
    let server = world.pod(workload("databases", &ports.map(|port| (port, ""))));
    let client = world.pod(workload("client", &[]));
    let ip = server.host.ip().to_string();
    let postgresql = Database::new(&server, world.mesh.scratch(), "postgres");
    let mariadb = Database::new(&server, world.mesh.scratch(), "mysql");
    let mut making = [postgresql.init_postgresql(), mariadb.init_mariadb()];
    assert!(making.each_mut().map(|process| process.wait().success()).iter().all(|done| *done));
    let _redis = redis(&server, "127.0.0.1");
    let mut postgresql = postgresql.postgresql(&ip);
    let _mariadb = mariadb.mariadb("0.0.0.0");

    for (host, destination) in [("10.96.0.10", "databases.shop"), (ip.as_str(), ip.as_str())] {
        let redis = |words: &[&str]| {
            let mut command = Command::new(tool("redis-cli", "redis-tools"));
            quickly(&client, command.args(["-h", host, "-p", &REDIS.to_string()]).args(words))
        };
        assert_eq!(redis(&["SET", "where", host]), "OK");
        assert_eq!(redis(&["GET", "where"]), host);
        assert_eq!(say(&client, host, REDIS, &["PING\r\n"])["answer"], "+PONG\r\n");

        let mut psql = Command::new(postgresql_program("psql"));
        psql.args(["-h", host, "-p", &POSTGRESQL.to_string(), "-U", "postgres", "--no-psqlrc", "-At"]);
        let table = "CREATE TEMP TABLE answers AS SELECT 6 * 7 AS answer";
        assert_eq!(quickly(&client, psql.args(["-q", "-c", table, "-c", "SELECT answer FROM answers"])), "42");

        let mut query = Command::new(tool("mariadb", "mariadb-client"));
        query.args(["--no-defaults", "--protocol=tcp", "--skip-column-names", "-h", host, "-P", &MARIADB.to_string()]);
        query.args(["-u", "pillion", "-psecret", "-e", "SELECT 6 * 7"]);
        assert_eq!(quickly(&client, &mut query), "42");

        for (port, connections) in [(REDIS, 3.0), (POSTGRESQL, 1.0), (MARIADB, 1.0)] {
            let destination = format!("{destination}:{port}");
            let labels = [("destination", destination.as_str()), ("tls", "mutual"), ("reason", "")];
            let count = || client.sidecar.metric("pillion_tcp_connections_total", &labels);
            until(&format!("{destination} went with mutual TLS"), || count() == connections);
        }
    }
    assert_eq!((detections(&client, "opaque"), detections(&client, "server_first")), (8.0, 2.0));
    // PostgreSQL would else leave shared memory behind.
    postgresql.signal(Signal::SIGINT);
    postgresql.wait();
}

/// Runs a client to its end; it must not take long.
fn quickly(client: &Pod, command: &mut Command) -> String {
    let begin = Instant::now();
    let said = run(&mut client.host.wrap_as(APPLICATION, &[], command));
    assert!(begin.elapsed() < NO_STALL, "{:?}: {command:?}", begin.elapsed());
    said.trim().to_owned()
}

fn redis(pod: &Pod, address: &str) -> Process {
    let mut command = Command::new(tool("redis-server", "redis-server"));
    command.args(["--bind", address, "--port", &REDIS.to_string(), "--save", "", "--protected-mode", "no"]);
    let mut process = pod.spawn("redis-server", &command);
    process.first_line("it is ready", |line| line.contains("Ready to accept connections").then_some(()));
    process
}

/// A database with a folder of its own, as the user that its package has made.
struct Database<'a> {
    pod: &'a Pod,
    user: u32,
    folder: PathBuf,
}

impl<'a> Database<'a> {
    fn new(pod: &'a Pod, scratch: &Path, user: &str) -> Self {
        let folder = scratch.join(user);
        let user = run(Command::new("id").args(["-u", user])).trim().parse().expect("a number");
        fs::create_dir(&folder).expect("a folder");
        chown(&folder, Some(user), Some(user)).expect("root may");
        Self { pod, user, folder }
    }

    fn init_postgresql(&self) -> Process {
        let mut command = Command::new(postgresql_program("initdb"));
        command.args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "-D"]).arg(self.data());
        self.spawn("initdb", &command)
    }

    fn init_mariadb(&self) -> Process {
        let mut command = Command::new(tool("mariadb-install-db", "mariadb-server"));
        command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        command.arg(format!("--datadir={}", self.data().display()));
        self.spawn("mariadb-install-db", &command)
    }

    fn postgresql(&self, address: &str) -> Process {
        // From everywhere, and not from the sidecar alone: who calls is the sidecar's affair.
        fs::write(self.data().join("pg_hba.conf"), "host all all all trust\n").expect("a file");
        let mut command = Command::new(postgresql_program("postgres"));
        command.arg("-D").arg(self.data()).args([
            "-p",
            &POSTGRESQL.to_string(),
            "-c",
            "fsync=off",
            "-c",
            "dynamic_shared_memory_type=mmap",
        ]);
        command.args(["-c", &format!("listen_addresses={address}"), "-c", "unix_socket_directories="]);
        let mut process = self.spawn("postgres", &command);
        self.until_logged(&mut process, "ready to accept connections");
        process
    }

    fn mariadb(&self, address: &str) -> Process {
        let users = self.folder.join("users.sql");
        fs::write(&users, "CREATE USER pillion@'%' IDENTIFIED BY 'secret';\n").expect("a file");
        let mut command = Command::new(tool("mariadbd", "mariadb-server"));
        command.args(["--no-defaults", "--skip-name-resolve", "--bind-address", address]);
        command.args(["--port", &MARIADB.to_string(), "--innodb-flush-log-at-trx-commit=0"]);
        for (option, file) in
            [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("init-file", "users.sql")]
        {
            command.arg(format!("--{option}={}", self.folder.join(file).display()));
        }
        let mut process = self.spawn("mariadbd", &command);
        self.until_logged(&mut process, "ready for connections");
        process
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn spawn(&self, name: &str, command: &Command) -> Process {
        let mut command = command_in(&self.folder, command);
        Process::spawn(name, &mut self.pod.host.wrap_as(self.user, &[], command.env("LC_ALL", "C")))
    }

    fn until_logged(&self, process: &mut Process, words: &str) {
        until(words, || {
            assert!(process.exited().is_none(), "it has ended");
            process.log().contains(words)
        });
    }
}

/// The same command, run in a folder.
fn command_in(folder: &Path, command: &Command) -> Command {
    let mut there = Command::new(command.get_program());
    there.args(command.get_args()).current_dir(folder);
    there
}

/// A program of the newest PostgreSQL; Debian's own wrappers look for a cluster of the machine.
fn postgresql_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name)).filter(|file| file.is_file());
    programs.max().unwrap_or_else(|| panic!("{name} is missing: apt-get install postgresql (or run tests/run)"))
}
