//! Retries of gRPC calls: Python's grpcio as client and as server.

use serde_json::Value;

use super::{policy, treated};
use crate::support::{Mesh, Workload, in_workspace, python, python_app, run};

#[test]
fn calls_are_sent_again_by_their_status_and_the_server_is_told_and_asked() {
    let mesh = Mesh::start();
    let server = python_app(&mesh, "grpc_flaky.py", &[]);
    mesh.service("flaky", &[("grpc", 50051, "grpc")]);
    policy(
        &mesh,
        "flaky",
        "retries: { on: [ unavailable, resource-exhausted ], attempts: 2 }\n  timeouts: { request: 10s, perTry: 5s }",
    );
    let _server_sidecar = mesh.workload(Workload::new("flaky").port("grpc", server.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "flaky.shop:50051", |told| told["request_ms"] == 10_000);
    let cases = [
        ("UNAVAILABLE-2", "OK", "2 hello", 3),
        ("UNAVAILABLE-3", "UNAVAILABLE", "", 3),
        ("INTERNAL-1", "INTERNAL", "", 1),
        ("RESOURCE_EXHAUSTED-1-200", "OK", "1 hello", 2),
        ("RESOURCE_EXHAUSTED-1-never", "RESOURCE_EXHAUSTED", "", 1),
        ("UNAVAILABLE-0", "OK", "none hello", 1),
    ];
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    command.arg("flaky.shop:50051").args(cases.iter().map(|(method, ..)| format!("/flaky.Flaky/{method}")));
    let said: Vec<Value> = run(&mut command).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let calls: Vec<Value> =
        server.process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for ((method, code, reply, count), said) in cases.into_iter().zip(&said) {
        assert_eq!((&said["code"], &said["reply"]), (&code.into(), &reply.into()), "{method}: {said}");
        let path = format!("/flaky.Flaky/{method}");
        let tries: Vec<&Value> = calls.iter().filter(|call| call["method"] == path.as_str()).collect();
        assert_eq!(tries.len(), count, "{method}");
        // The client waits for 20 s, the route for 10 s, and one try may take 5 s.
        assert!(tries.iter().all(|call| call["left"].as_f64().is_some_and(|left| left <= 5.0)), "{tries:?}");
    }
}
