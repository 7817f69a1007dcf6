//! Names of xDS resources: whatever parses must come back from its own text,
//! and names that are compared as text must have one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion_wire::name::{Destination, ListenerName, PortName, ServicePort, host_name};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = text.parse::<ListenerName>() {
        check_listener(text, &name);
    }
    if let Ok(destination) = text.parse::<Destination>() {
        check_destination(text, &destination);
    }
    if let Ok(name) = text.parse::<ServicePort>() {
        assert_eq!(name.to_string(), text);
        let whole = ServicePort::new(&name.service, &name.namespace, name.port);
        let again = match &name.subset {
            Some(subset) => whole.and_then(|whole| whole.of_subset(subset)),
            None => whole,
        };
        assert_eq!(again, Ok(name));
    }
    if let Ok(name) = text.parse::<PortName>() {
        assert_eq!(name.to_string(), text);
        if let PortName::Workload(address) = name {
            assert_eq!(Destination::from(address).to_string(), text);
        }
    }
});

fn check_listener(text: &str, name: &ListenerName) {
    assert_eq!(name.to_string().parse().as_ref(), Ok(name));
    match name {
        ListenerName::Outbound(destination) => {
            assert_eq!(text.parse().as_ref(), Ok(destination));
        }
        ListenerName::Inbound(address) | ListenerName::GrpcServer(address) => {
            assert_eq!(name.to_string(), text);
            assert_ne!(address.port(), 0);
        }
        ListenerName::Host(host) => {
            assert_eq!(host_name(host).as_ref(), Ok(host));
            assert!(!host.is_empty() && host.len() <= 253 && host.parse::<std::net::IpAddr>().is_err());
        }
    }
}

fn check_destination(text: &str, destination: &Destination) {
    let Destination { host, port } = destination;
    assert_eq!(destination.to_string().parse().as_ref(), Ok(destination));
    assert_eq!(Destination::new(host, *port).as_ref(), Ok(destination));
    assert_ne!(*port, 0);
    assert!(!host.is_empty() && host.len() <= 253 && !host.ends_with('.'));
    match destination.ip() {
        Some(ip) => assert_eq!(ip.to_canonical().to_string(), *host),
        None => {
            let folded = format!("{host}:{port}");
            let with_dot = format!("{host}.:{port}");
            let text = text.to_ascii_lowercase();
            assert!(text == folded || text == with_dot);
        }
    }
}
