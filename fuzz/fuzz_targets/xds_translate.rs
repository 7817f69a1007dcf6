//! xDS resources from the control plane: whatever the bytes, translation
//! answers, and says the same when it is asked again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion_proxy::discovery::Kind;
use pillion_proxy::discovery::xds::translate;
use pillion_wire::xds::{Any, type_url};

const INBOUND: &str = "pillion/inbound?xds.resource.listening_address=127.0.0.1:15008";

fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the kind, so that a corpus covers all of them.
    let Some((choice, content)) = bytes.split_first() else { return };
    let (kind, name, url) = match choice % 6 {
        0 => (Kind::Listener, "orders.shop:80", type_url::LISTENER),
        1 => (Kind::Listener, INBOUND, type_url::LISTENER),
        2 => (Kind::Route, "orders.shop:80", type_url::ROUTE),
        3 => (Kind::Cluster, "orders.shop:80", type_url::CLUSTER),
        4 => (Kind::Endpoints, "orders.shop:80", type_url::ENDPOINTS),
        _ => (Kind::Listener, "pillion/host?name=orders.shop", type_url::LISTENER),
    };
    let any = Any { type_url: url.to_owned(), value: content.to_vec() };
    let first = translate::resource(kind, name, &any);
    assert_eq!(first, translate::resource(kind, name, &any));
});
