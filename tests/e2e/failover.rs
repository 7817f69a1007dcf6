//! Hosts that are down: what a client is told, who else is asked, and when the host is asked again.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Mesh, Process, Sidecar, Workload, connect, curl, eventually, read_http_head, run, tcp_server, tool, until,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// nginx that answers with its name, at a given address, so that it can be killed and started again.
fn named_nginx(mesh: &Mesh, name: &str, address: SocketAddr) -> Process {
    let folder = mesh.scratch().join(format!("nginx-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log stderr; events {{ }}\n\
         http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;\n\
         uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen {address}; location / {{ return 200 {name}; }} }} }}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(tool("nginx", "nginx-light"));
    let process = Process::spawn(name, command.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&config));
    until("nginx listens", || TcpStream::connect(address).is_ok());
    process
}

fn ask(client: &Sidecar) -> (u16, String) {
    let answer = curl(&[&format!("http://{}/", client.outbound()), "-H", "Host: app.shop"]);
    let what = if answer.reason().is_empty() { answer.text() } else { answer.reason().to_owned() };
    (answer.status, what)
}

/// Names of the 200 answers of this many requests.
fn names(client: &Sidecar, count: usize) -> Vec<String> {
    let answers: Vec<(u16, String)> = (0..count).map(|_| ask(client)).collect();
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    answers.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn an_application_that_is_down_is_a_503_that_says_so_until_it_is_up() {
    let mesh = Mesh::start();
    let address = mesh.free_address();
    mesh.service("app", &[("http", 80, "http")]);
    let _server = mesh.workload(Workload::new("app").port("http", address));
    let client = mesh.workload(Workload::new("client"));
    assert_eq!(ask(&client), (503, "connect_failure".to_owned()));
    let _application = named_nginx(&mesh, "up", address);
    eventually("the first host that failed is asked again", DEADLINE, || {
        (ask(&client) == (200, "up".to_owned())).then_some(())
    });
}

#[test]
fn a_sidecar_that_is_down_is_a_503_that_says_so() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("app").port("http", mesh.free_address()));
    let client = mesh.workload(Workload::new("client"));
    drop(server);
    assert_eq!(ask(&client), (503, "connect_failure".to_owned()));
}

#[test]
fn of_two_instances_one_that_is_killed_costs_no_request_and_comes_back_when_it_is_up_again() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let (first, second) = (mesh.free_address(), mesh.free_address());
    let mut victim = named_nginx(&mesh, "one", first);
    let _survivor = named_nginx(&mesh, "two", second);
    let _one = mesh.workload(Workload::new("app-1").port("http", first));
    let _two = mesh.workload(Workload::new("app-2").port("http", second));
    let client = mesh.workload(Workload::new("client"));
    let both = |names: &[String]| ["one", "two"].iter().all(|name| names.iter().any(|given| given == name));
    until("both answer", || both(&names(&client, 4)));

    victim.kill();
    assert!(names(&client, 20).iter().all(|name| name == "two"), "every request was answered, by the other one");
    let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).unwrap();
    assert!(clusters.to_string().contains(&first.ip().to_string()), "{clusters}");
    let tries = |client: &Sidecar| client.metric("pillion_upstream_retries_total", &[]);
    let before = tries(&client);
    assert!((1.0..=10.0).contains(&before), "it is asked ever less often: {before} of 20 requests were tried again");

    let _back = named_nginx(&mesh, "one", first);
    until("the one that is up again is asked again", || both(&names(&client, 2)));
}

#[test]
fn load_loses_at_most_what_a_killed_instance_had_in_hand() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let (first, second) = (mesh.free_address(), mesh.free_address());
    let mut victim = named_nginx(&mesh, "one", first);
    let _survivor = named_nginx(&mesh, "two", second);
    let _one = mesh.workload(Workload::new("app-1").port("http", first));
    let _two = mesh.workload(Workload::new("app-2").port("http", second));
    let client = mesh.workload(Workload::new("client").setting("access_log", "errors"));
    assert_eq!(ask(&client).0, 200);
    let url = format!("http://{}/", client.outbound());
    let mut wrk = Command::new(tool("wrk", "wrk"));
    wrk.args(["-t1", "-c8", "-d3s", "--timeout", "20s", "-H", "Host: app.shop", &url]);
    let load = std::thread::spawn(move || run(&mut wrk));
    until("both are under load", || {
        let page = client.admin_page("/metrics");
        page.contains("pillion_requests_total") && client.metric("pillion_requests_total", &[("status", "200")]) > 100.0
    });
    victim.kill();
    let report = load.join().unwrap();
    assert!(!report.contains("Socket errors"), "{report}");
    // What was written to it may have been done: that is not repeated. All that comes later is tried on the other one.
    let failed: u32 = report
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "))
        .map_or(0, |count| count.parse().unwrap());
    assert!(failed <= 8, "eight were under way: {report}");
    let log: Vec<Value> = client.access_log().into_iter().filter(|line| line["response_code"] == 503).collect();
    assert!(log.iter().all(|line| line["detail"].as_str().unwrap().ends_with("upstream_reset")), "{log:?}");
}

#[test]
fn a_request_with_a_body_that_reached_a_dying_application_is_not_sent_twice() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let (sender, seen) = std::sync::mpsc::channel();
    let application = move |stream: TcpStream| {
        let mut stream = stream;
        let head = read_http_head(&mut stream);
        sender.send(head).expect("the test waits"); // And dies.
    };
    let application = tcp_server(&mesh, application);
    let _one = mesh.workload(Workload::new("app-1").port("http", application));
    let _two = mesh.workload(Workload::new("app-2").port("http", application));
    let client = mesh.workload(Workload::new("client"));
    let url = format!("http://{}/order", client.outbound());
    let answer = curl(&[&url, "-H", "Host: app.shop", "-d", "one coffee"]);
    assert_eq!((answer.status, answer.reason()), (503, "upstream_reset"), "{answer:?}");
    assert_eq!(seen.try_iter().filter(|head| head.starts_with("POST /order")).count(), 1);
}

#[test]
fn a_workload_that_is_removed_gets_no_new_connections_and_keeps_the_ones_it_has() {
    let mesh = Mesh::start();
    let named = |name: &'static str| {
        tcp_server(&mesh, move |mut stream| {
            let _gone = stream.write_all(name.as_bytes());
            let mut echo = stream.try_clone().expect("a socket");
            let _ended = std::io::copy(&mut stream, &mut echo);
        })
    };
    let (one, two) = (named("1"), named("2"));
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    let _one = mesh.workload(Workload::new("ledger-1").port("tcp", one));
    let _two = mesh.workload(Workload::new("ledger-2").port("tcp", two));
    let client = mesh.workload(Workload::new("client").tcp("ledger.shop:7000"));
    let open = || {
        use std::io::Read as _;
        let mut stream = connect(client.tcp("ledger.shop:7000"));
        let mut name = [0];
        stream.read_exact(&mut name).unwrap_or_default();
        (name[0], stream)
    };
    let mut kept = eventually("a connection to the first", DEADLINE, || {
        let (name, stream) = open();
        (name == b'1').then_some(stream)
    });
    until("connections to the second too", || open().0 == b'2');

    mesh.remove("workload-ledger-1.yaml");
    until("new connections go to the second only", || (0..6).all(|_| open().0 == b'2'));
    for _ in 0..3 {
        use std::io::Read as _;
        kept.write_all(b"still here").unwrap();
        let mut echo = [0; 10];
        kept.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"still here");
    }
    mesh.remove("workload-ledger-2.yaml");
    until("without any, a new connection is reset", || open().0 == 0);
    drop(TcpListener::bind((mesh.ip(), 0)));
}
