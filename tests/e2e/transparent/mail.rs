//! Mail: the server greets, and the two take turns.

use serde_json::Value;

use super::{World, app, detections, json, workload};
use crate::support::{Stack, until};

#[test]
fn a_message_is_delivered_undeclared_without_waiting_for_the_greeting() {
    let world = World::start(Stack::V4);
    world.service("mail", "10.96.0.10", &[(25, 2525, "")]);
    let server = world.pod(workload("mail", &[(2525, "")]));
    let client = world.pod(workload("client", &[]));
    let smtp = app(&server, "smtp.py", &["serve", "127.0.0.1:2525"]);
    let ip = server.host.ip().to_string();
    for (host, port, text) in [("10.96.0.10", "25", "by its Service"), (&ip, "2525", "by its own address")] {
        let sent = json(&client.host, "smtp.py", &["send", host, port, text]);
        assert_eq!(sent["refused"], serde_json::json!({}), "{sent}");
        assert!(sent["greeted_after_milliseconds"].as_f64() < Some(1000.0), "{sent}");
    }
    let mail: Vec<Value> = smtp.stdout().lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(mail.len(), 2, "{mail:?}");
    for (message, text) in mail.iter().zip(["by its Service", "by its own address"]) {
        assert_eq!((&message["from"], &message["to"][0]), (&"a@client.shop".into(), &"b@mail.shop".into()));
        assert!(message["message"].as_str().is_some_and(|message| message.contains(text)), "{message}");
    }
    let mutual = |destination: &str| {
        client.sidecar.metric("pillion_tcp_connections_total", &[("destination", destination), ("tls", "mutual")])
    };
    for destination in ["mail.shop:25", &format!("{ip}:2525")] {
        until("it went with mutual TLS", || mutual(destination) == 1.0);
    }
    assert_eq!(detections(&client, "server_first"), 2.0);
}
