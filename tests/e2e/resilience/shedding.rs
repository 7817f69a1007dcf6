//! `loadShedding`: how much a workload takes, whom it refuses then, and what they are told.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::actor::{Act, Actor};
use super::{ask, logged, policy, says};
use crate::support::{Curl, Mesh, Sidecar, Workload, curl, exchange, tool, until};

const BUSY: Duration = Duration::from_millis(20);

/// A limit that stays what it is: nothing is ever slower than an hour.
fn fixed(limit: u32) -> String {
    format!(
        "loadShedding: {{ maxConcurrencyLimit: {limit}, minConcurrencyLimit: {limit}, \
         minRtt: {{ fixedValue: 1h, minConcurrency: 1 }} }}"
    )
}

/// What `/clusters` says of the only port.
fn stand(server: &Sidecar) -> Value {
    let page: Value = serde_json::from_str(&server.admin_page("/clusters")).expect("JSON");
    let ports = page.as_object().expect("an object").iter();
    ports
        .filter(|(name, _)| name.starts_with("inbound:"))
        .map(|(_, port)| port["load_shedding"].clone())
        .collect::<Vec<_>>()
        .pop()
        .unwrap_or_default()
}

fn shed(server: &Sidecar, labels: &[(&str, &str)]) -> f64 {
    server.metrics().sum("pillion_shed_requests_total", labels)
}

/// A Service `api` in front of an application, with a policy.
fn serve(mesh: &Mesh, application: &Actor, spec: &str) -> Sidecar {
    mesh.service("api", &[("web", 80, "http")]);
    policy(mesh, "api", spec);
    let server = mesh.workload(Workload::new("api").setting("workers", 2).port_with(
        "web",
        application.address,
        "access: permissive",
    ));
    until("the policy is in force", || !stand(&server).is_null());
    server
}

/// An application that is busy with each request for a while, and with `capacity` at once.
fn busy(mesh: &Mesh, capacity: usize) -> Actor {
    let free = Arc::new((Mutex::new(capacity), Condvar::new()));
    Actor::start(mesh.ip(), move |_request| {
        let (places, freed) = &*free;
        let mut left = freed.wait_while(places.lock().expect("no panic"), |left| *left == 0).expect("no panic");
        *left -= 1;
        drop(left);
        thread::sleep(BUSY);
        *places.lock().expect("no panic") += 1;
        freed.notify_one();
        Act::Answer(200, String::new())
    })
}

/// Callers that ask again and again, until they are dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    answers: Arc<[AtomicUsize; 2]>,
    callers: Vec<thread::JoinHandle<()>>,
}

impl Flood {
    fn begin(client: &Sidecar, callers: usize, field: &'static str) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
        let caller = |_| {
            let (stop, answers, port) = (Arc::clone(&stop), Arc::clone(&answers), client.outbound());
            thread::spawn(move || {
                let text = format!("GET /flood HTTP/1.1\r\nhost: api.shop\r\n{field}connection: close\r\n\r\n");
                while !stop.load(Ordering::SeqCst) {
                    let answer = exchange(port, text.as_bytes(), false, Duration::from_secs(60));
                    let is_good = answer.starts_with(b"HTTP/1.1 200");
                    assert!(is_good || answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
                    answers[usize::from(is_good)].fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let callers = (0..callers).map(caller).collect();
        Self { stop, answers, callers }
    }

    /// Ends it: how many were refused, and how many were not.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.join().expect("an answer of one kind or the other");
        }
        (self.answers[0].load(Ordering::SeqCst), self.answers[1].load(Ordering::SeqCst))
    }
}

fn ask_api(client: &Sidecar, arguments: &[&str]) -> Curl {
    ask(client, "http://api.shop/quiet", arguments)
}

#[test]
fn a_noisy_caller_does_not_starve_a_quiet_one() {
    let mesh = Mesh::start();
    let application = busy(&mesh, 1000);
    let server = serve(&mesh, &application, &fixed(8));
    let [noisy, quiet] = ["noisy", "quiet"].map(|name| mesh.workload(Workload::new(name)));
    let flood = Flood::begin(&noisy, 24, "");
    until("it is too much", || shed(&server, &[]) >= 100.0);
    let good = (0..200).filter(|_| ask_api(&quiet, &[]).status == 200).count();
    let report = stand(&server);
    let (refused, served) = flood.end();
    eprintln!("quiet: {good} of 200 served; noisy: {served} served, {refused} refused; {report}");
    assert!(good >= 190, "{good} of 200");
    assert!(refused > 100 && served > 100, "{refused} refused, {served} served: some of the noisy one's go on");
    assert!(shed(&server, &[("criticality", "CRITICAL"), ("reason", "caller")]) > 0.0);
    assert_eq!((&report["limit"], &report["callers"]), (&8.into(), &2.into()), "{report}");
    until("all places are back", || stand(&server)["in_flight"] == 0);
}

#[test]
fn what_is_critical_passes_while_what_is_not_is_refused() {
    let mesh = Mesh::start();
    let application = busy(&mesh, 1000);
    let server = serve(&mesh, &application, &fixed(8));
    let client = mesh.workload(Workload::new("client"));
    let flood = Flood::begin(&client, 24, "x-criticality: sheddable\r\n");
    until("it is too much", || shed(&server, &[("criticality", "SHEDDABLE")]) >= 100.0);
    let critical = ["-H", "x-criticality: CRITICAL"];
    let good = (0..100).filter(|_| ask_api(&client, &critical).status == 200).count();
    let (refused, served) = flood.end();
    eprintln!("critical: {good} of 100 served; sheddable: {served} served, {refused} refused");
    assert!(good >= 95, "{good} of 100");
    assert!(shed(&server, &[("criticality", "SHEDDABLE"), ("reason", "criticality")]) > 0.0);
    assert!(refused > 100);
    assert!(application.seen("/quiet").iter().all(|request| request.field("x-criticality") == Some("critical")));

    let url = format!("http://{}/stranger", server.front("web"));
    assert_eq!(curl(&[&url, "-H", "x-criticality: CRITICAL_PLUS"]).status, 200);
    assert_eq!(application.seen("/stranger")[0].field("x-criticality"), None, "whoever is outside is not believed");
}

#[test]
fn who_is_refused_is_told_so_once_and_places_come_back_however_requests_end() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/hang" => Act::Hang,
        "/stream" => Act::Stall,
        _ => Act::Answer(200, String::new()),
    });
    let server = serve(&mesh, &application, &fixed(1));
    let client = mesh.workload(Workload::new("client"));
    let in_flight = |count: u32| until("so many are under way", || stand(&server)["in_flight"] == count);

    let held = Background::ask(&client, "/hang");
    in_flight(1);
    for _ in 0..5 {
        let refused = ask_api(&client, &[]);
        assert_eq!((refused.status, refused.reason()), (503, "shed"), "{refused:?}");
        assert_eq!((refused.header("x-envoy-overloaded"), refused.header("retry-after")), (Some("true"), Some("1")));
    }
    let grpc = ask_api(&client, &["-H", "content-type: application/grpc"]);
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")), "{grpc:?}");
    assert_eq!(grpc.header("grpc-retry-pushback-ms"), Some("1000"));
    assert_eq!(shed(&server, &[("reason", "full")]), 6.0, "nobody repeats it behind the application's back");
    assert_eq!(logged(&server, "/quiet"), says("shed", "UO"));
    assert!(application.seen("/quiet").is_empty());
    assert_eq!(server.metrics().sum("pillion_adaptive_limit", &[]), 1.0);

    drop(held);
    in_flight(0);
    assert_eq!(ask_api(&client, &[]).status, 200, "the client that went away has given its place back");

    let _stream = Background::ask(&client, "/stream");
    until("it is there", || !application.seen("/stream").is_empty());
    until("a stream gives its place back while it goes on", || ask_api(&client, &[]).status == 200);
    in_flight(0);

    mesh.remove("policy-api.yaml");
    until("without the policy there is no limit", || stand(&server).is_null());
    let _held = [Background::ask(&client, "/hang"), Background::ask(&client, "/hang")];
    until("both are there", || application.seen("/hang").len() == 3);
    assert_eq!(ask_api(&client, &[]).status, 200);
}

#[test]
fn streams_are_neither_taken_for_requests_nor_for_slow_ones() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/stream" => Act::Stall,
        _ => Act::Answer(200, String::new()),
    });
    let server = serve(&mesh, &application, "loadShedding: { minRtt: { requestCount: 20 } }");
    let client = mesh.workload(Workload::new("client"));
    // More than may be under way while the latency without load is measured.
    let streams: Vec<_> = (0..8).map(|_| Background::ask(&client, "/stream")).collect();
    until("all are there", || application.seen("/stream").len() == 8);
    until("they hold no places", || stand(&server)["in_flight"] == 0);
    for _ in 0..20 {
        assert_eq!(ask_api(&client, &[]).status, 200);
    }
    until("the latency is known", || stand(&server)["min_rtt_ms"].as_f64().is_some_and(|millis| millis < 1000.0));
    assert!(application.gone().is_empty(), "the streams go on");
    drop(streams);
}

#[test]
fn whoever_reads_nothing_gives_its_place_back() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/big" => Act::Send(32 << 20),
        _ => Act::Answer(200, String::new()),
    });
    let server = serve(&mesh, &application, &fixed(1));
    let client = mesh.workload(Workload::new("client"));
    let mut reader = TcpStream::connect(client.outbound()).expect("it listens");
    reader.write_all(b"GET /big HTTP/1.1\r\nhost: api.shop\r\n\r\n").expect("written");
    until("it is there", || !application.seen("/big").is_empty());
    until("its place is free", || ask_api(&client, &[]).status == 200);
    until("nothing is under way", || stand(&server)["in_flight"] == 0);
    let mut first = [0; 12];
    reader.read_exact(&mut first).expect("the answer goes on");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(application.closed(), 0, "most of it is still to be sent");
}

#[test]
fn a_changed_policy_forgets_nothing_that_is_under_way() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/hang" => Act::Hang,
        _ => Act::Answer(200, String::new()),
    });
    let server = serve(&mesh, &application, &fixed(1));
    let client = mesh.workload(Workload::new("client"));
    let first = Background::ask(&client, "/hang");
    until("it is under way", || stand(&server)["in_flight"] == 1);
    assert_eq!(ask_api(&client, &[]).reason(), "shed");
    policy(&mesh, "api", &fixed(2));
    until("the change is in force", || stand(&server)["limit"] == 2);
    let report = stand(&server);
    assert_eq!((&report["in_flight"], &report["shed"]["CRITICAL"]["full"]), (&1.into(), &1.into()), "{report}");
    drop(first);
    until("its place comes back", || stand(&server)["in_flight"] == 0);
}

#[test]
fn an_upgrade_that_is_declined_is_a_request_like_any_other() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/stall" => Act::Stall,
        _ => Act::Answer(200, String::new()),
    });
    let limits = "rateLimits: [ { name: one, requests: 1, algorithm: concurrency, keys: [ { type: caller } ] } ]";
    let server = serve(&mesh, &application, &format!("loadShedding: {{ minRtt: {{ requestCount: 3 }} }}\n  {limits}"));
    let client = mesh.workload(Workload::new("client"));
    let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    for _ in 0..3 {
        assert!(stand(&server)["min_rtt_ms"].is_null());
        until("the one before has given its place back", || ask_api(&client, &upgrade).status == 200);
    }
    until("they have been measured", || stand(&server)["min_rtt_ms"].as_f64().is_some());
    let mut stalled = TcpStream::connect(client.outbound()).expect("it listens");
    let text = b"GET /stall HTTP/1.1\r\nhost: api.shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stalled.write_all(text).expect("written");
    let mut head = [0; 12];
    stalled.read_exact(&mut head).expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(ask_api(&client, &[]).reason(), "rate_limited", "it holds its place while it goes on");
    drop(stalled);
    until("it gives it back", || ask_api(&client, &[]).status == 200);
}

#[test]
fn the_limit_is_found_by_what_requests_take() {
    let mesh = Mesh::start();
    let application = busy(&mesh, 4);
    let server = serve(&mesh, &application, "loadShedding: { minRtt: { requestCount: 20 } }");
    let client = mesh.workload(Workload::new("client"));
    assert_eq!(stand(&server)["limit"], 1000, "it begins at the most");
    let dump: Value = serde_json::from_str(&server.admin_page("/config_dump")).expect("JSON");
    assert_eq!(dump["inbound"][0]["load_shedding"]["min_rtt"]["request_count"], 20, "{dump}");
    for _ in 0..20 {
        assert_eq!(ask_api(&client, &[]).status, 200);
    }
    until("the latency without load is known", || stand(&server)["min_rtt_ms"].as_f64().is_some());
    // Too many for the application by far: it queues them.
    let flood = Flood::begin(&client, 64, "");
    until("the limit has come down", || stand(&server)["limit"].as_u64().is_some_and(|limit| limit <= 32));
    until("what is too much is refused", || shed(&server, &[]) >= 20.0);
    let report = stand(&server);
    let (refused, served) = flood.end();
    eprintln!("{served} served, {refused} refused; {report}");
    assert!(report["limit"].as_u64().is_some_and(|limit| limit >= 3), "{report}");
    until("all places are back", || stand(&server)["in_flight"] == 0);
    assert_eq!(ask_api(&client, &[]).status, 200);
}

#[test]
fn health_checks_are_neither_refused_nor_measured_and_nobody_else_can_say_to_be_one() {
    let mesh = Mesh::start();
    let application = Actor::start(mesh.ip(), |request| match request.path() {
        "/hang" => Act::Hang,
        _ => Act::Answer(200, String::new()),
    });
    let spec = format!("healthChecks: {{ http: {{ path: /up }}, interval: 50ms, timeout: 10s }}\n  {}", fixed(1));
    let server = serve(&mesh, &application, &spec);
    let client = mesh.workload(Workload::new("client"));
    until("it answers", || ask_api(&client, &[]).status == 200);
    until("the place is back", || stand(&server)["in_flight"] == 0);
    let _hanging = Background::ask(&client, "/hang");
    until("the only place is taken", || application.seen("/hang").len() == 1);
    let passed = || {
        let labels = [("cluster", "api.shop:80"), ("event", "success")];
        client.metric("pillion_health_check_events_total", &labels)
    };
    let before = passed();
    until("checks pass all the same", || passed() >= before + 3.0);
    assert_eq!(shed(&server, &[]), 0.0, "none was refused");
    let quiet = application.seen("/quiet").len();
    let refused = ask_api(&client, &["-H", "x-pillion-check: 1"]);
    assert_eq!((refused.status, refused.reason()), (503, "shed"), "an application is not believed");
    let text = "GET /quiet HTTP/1.1\r\nhost: api.shop\r\nx-pillion-check: 1\r\nconnection: close\r\n\r\n";
    let answer = exchange(server.front("web"), text.as_bytes(), false, Duration::from_secs(60));
    assert!(answer.starts_with(b"HTTP/1.1 503"), "nor is a stranger: {}", String::from_utf8_lossy(&answer));
    assert_eq!(application.seen("/quiet").len(), quiet);
    let checks = application.seen("/up");
    assert!(checks.iter().all(|check| check.field("x-pillion-check").is_none()), "{:?}", checks.first());
}

/// curl that is left waiting for an answer, and killed when dropped.
struct Background(Child);

impl Background {
    fn ask(client: &Sidecar, path: &str) -> Self {
        let mut command = Command::new(tool("curl", "curl"));
        command.args(["--silent", "--noproxy", "*", "-H", "Host: api.shop"]);
        command.arg(format!("http://{}{path}", client.outbound())).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("curl runs"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ended = (self.0.kill(), self.0.wait());
    }
}
