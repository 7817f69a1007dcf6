//! What somebody sees who listens between the pods.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{World, lines, nginx_in, say, workload};
use crate::support::{Process, Stack, in_workspace, python, run, tool, until};

const MARKER: &str = "plaintext-5d41402abc4b2a76b9719d911017c592";

#[test]
fn between_pods_there_is_nothing_but_tls_1_3_and_a_marker_never_appears() {
    let world = World::start(Stack::V4);
    world.service("site", "10.96.0.10", &[(80, 8080, ""), (7, 7000, "")]);
    let file = world.mesh.scratch().join("capture");
    let mut command = world.network.command_between(tool("tcpdump", "tcpdump"));
    // As root: it would else give up the right to write here.
    command.args(["-i", "switch", "-U", "--immediate-mode", "-Z", "root", "-w"]).arg(&file).arg("ip or ip6");
    let mut tcpdump = Process::spawn("tcpdump", &mut command);
    until("it listens", || tcpdump.log().contains("listening on"));

    let server = world.pod(workload("site", &[(8080, ""), (7000, "")]));
    let client = world.pod(workload("client", &[(7001, "")]));
    let outside = world.network.host("outside");
    let answers = format!("add_header x-marker {MARKER}; location / {{ return 200 {MARKER}; }}");
    let _site = nginx_in(&server, &world.mesh, "127.0.0.1:8080", &answers);
    let _echo = lines(&server, "0.0.0.0:7000", "");
    let _other_way = lines(&client, "127.0.0.1:7001", "");
    let (from, to) = (client.host.ip(), server.host.ip());
    for host in ["10.96.0.10".to_owned(), format!("{to}:8080")] {
        let field = format!("x-marker: {MARKER}");
        let answer = client.curl(&[&format!("http://{host}/{MARKER}"), "-H", &field, "--data", MARKER]);
        assert_eq!((answer.header("x-marker"), answer.text().as_str()), (Some(MARKER), MARKER), "{}", answer.message);
    }
    for (pod, host, port) in
        [(&client, "10.96.0.10", 7), (&client, &to.to_string(), 7000), (&server, &from.to_string(), 7001)]
    {
        assert_eq!(say(pod, host, port, &[MARKER])["answer"], MARKER);
    }

    // The capture sees what there is to see: the same to somebody outside the mesh.
    let mut echo = python();
    echo.arg(in_workspace("tests/e2e/apps/lines.py")).arg(format!("{}:9000", outside.ip()));
    let mut echo = Process::spawn("lines.py", &mut outside.wrap(&echo));
    echo.ready();
    assert_eq!(say(&client, outside.ip(), 9000, &[MARKER])["answer"], MARKER);
    let seen =
        || fs::read(&file).expect("a capture").windows(MARKER.len()).filter(|at| *at == MARKER.as_bytes()).count();
    until("both ways are in the file", || seen() >= 2);
    tcpdump.signal(Signal::SIGINT);
    tcpdump.wait();
    assert!(tcpdump.log().contains("0 packets dropped by kernel"), "{}", tcpdump.log());

    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/pcap.py")).arg(&file).arg(MARKER);
    let capture: serde_json::Value = serde_json::from_str(&run(&mut command)).expect("JSON");
    assert_eq!(capture["plain"], json!({ "9000": 1 }), "{capture}");
    assert_eq!(capture["found"], json!({ "to 9000": 1, "from 9000": 1 }), "{capture}");
    assert_eq!((&capture["other"], &capture["gaps"]), (&json!([]), &json!(0)), "{capture}");
    let ports: Vec<&String> = capture["tls13"].as_object().expect("an object").keys().collect();
    assert_eq!(ports, ["15008", "15010"], "the mesh's and the control plane's: {capture}");
    assert_eq!(seen(), 2);
}
