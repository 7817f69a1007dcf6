//! What sidecars and the control plane tell each other in the fields that xDS
//! and HTTP leave free: headers between sidecars, metadata on endpoints, filter
//! chains and nodes.
//!
//! Everything is under our own keys, so that gRPC clients and Envoy, which read
//! the same resources, pass over it. Metadata of another key is never looked
//! at; metadata under our key that does not parse is an error, since dialling
//! an endpoint in plaintext because its identity was misspelt would be worse
//! than not dialling it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::label::{is_label, is_subdomain};
use crate::spiffe::{SpiffeId, SpiffeIdError};
use crate::text::excerpt;
use crate::xds::core::{Locality, Metadata, Node, node::UserAgentVersionType};
use crate::xds::{Struct, Value, value::Kind};

/// Header naming the application port that a request is for.
///
/// Only sidecars set it, only between sidecars: it is removed from what the
/// application sends and receives.
pub const PORT_HEADER: &str = "x-pillion-port";

/// Header telling in which HTTP version the calling application spoke: `1.0`,
/// `1.1` or `2`. Like [`PORT_HEADER`], only between sidecars.
pub const HTTP_VERSION_HEADER: &str = "x-pillion-http-version";

/// Header telling of the caller's situation: how many milliseconds it still waits for the answer, or nothing where it
/// has no limit; and behind that [`CALL_RETRY`] when it has asked before, so that whoever is behind does not repeat the
/// request once more. Like [`PORT_HEADER`], only between sidecars.
pub const CALL_HEADER: &str = "x-pillion-call";
/// See [`CALL_HEADER`].
pub const CALL_RETRY: &str = ";retry";

/// Header of health checks that a sidecar makes of an application behind another: the latter's load shedding neither refuses
/// nor measures them. The value means nothing. Like [`PORT_HEADER`], only between sidecars.
pub const CHECK_HEADER: &str = "x-pillion-check";

/// Header of responses that asks whoever waits for them to keep the spans of the request although its trace is not sampled:
/// it failed, was slow, or is a part of something that was. Believed of other sidecars and of a sidecar's own
/// application, and never passed on to an application or to callers outside the mesh.
pub const TRACE_HEADER: &str = "x-pillion-trace";
/// The value of [`TRACE_HEADER`].
pub const TRACE_KEEP: &str = "keep";

/// Header carrying a stable reason code, on every response that a proxy made
/// itself and on no other.
pub const REASON_HEADER: &str = "x-pillion-reason";

/// The cluster that stands for a backend which does not exist or may not be used: its share of the traffic is
/// answered 500 (Gateway API, `HTTPRouteRule.backendRefs`). No such cluster is ever sent.
pub const INVALID_BACKEND: &str = "pillion-invalid-backend";

/// Key in `LbEndpoint.metadata.filter_metadata` (Envoy `core.v3.Metadata`) of
/// endpoints that have a sidecar. See [`MeshEndpoint`].
pub const ENDPOINT_METADATA: &str = "pillion.dev/mesh";

/// Key in `FilterChain.metadata.filter_metadata` (Envoy `listener.v3`) for the
/// application behind an inbound port. See [`Application`].
pub const FILTER_CHAIN_METADATA: &str = "pillion.dev/application";

/// How an endpoint is reached through its sidecar.
///
/// In EDS as `{"port": 15008, "identity": "spiffe://…"}`. An endpoint without
/// it is outside the mesh, and dialled directly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshEndpoint {
    /// Mesh port of the sidecar, on the endpoint's address; never 0. Workloads
    /// that share an address differ in it.
    pub port: u16,
    /// The only identity that the sidecar may present.
    pub identity: SpiffeId,
}

impl MeshEndpoint {
    /// The metadata of an endpoint that has a sidecar.
    ///
    /// It has two fields in a map, which are encoded in no particular order:
    /// see [`crate::xds`] before hashing it.
    #[must_use]
    pub fn to_metadata(&self) -> Metadata {
        metadata(
            ENDPOINT_METADATA,
            [
                ("port", Kind::NumberValue(f64::from(self.port))),
                ("identity", Kind::StringValue(self.identity.to_string())),
            ],
        )
    }

    /// Reads an endpoint's metadata; `None` when it is outside the mesh.
    ///
    /// # Errors
    /// When there is metadata under [`ENDPOINT_METADATA`], but port or identity
    /// is missing or malformed.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, MeshError> {
        let Some(fields) = ours(metadata, ENDPOINT_METADATA)? else {
            return Ok(None);
        };
        let identity = fields.string("identity")?;
        let identity = identity.parse().map_err(MeshError::Identity)?;
        let port = fields.port("port")?;
        Ok(Some(Self { port, identity }))
    }
}

/// The application behind a filter chain of an inbound listener.
///
/// As `{"address": "127.0.0.1:8080"}`, with `"tls": true` beside it where the
/// application itself speaks TLS: nothing else of the chain tells its bytes from
/// other TCP, and a sidecar must take such TLS neither for its own nor for plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Application {
    /// Where it listens; never port 0.
    pub address: SocketAddr,
    /// It speaks TLS itself.
    pub tls: bool,
}

impl Application {
    /// The metadata of its filter chain. See [`MeshEndpoint::to_metadata`] before
    /// hashing it.
    #[must_use]
    pub fn to_metadata(&self) -> Metadata {
        let address = ("address", Kind::StringValue(self.address.to_string()));
        if self.tls {
            metadata(FILTER_CHAIN_METADATA, [address, ("tls", Kind::BoolValue(true))])
        } else {
            metadata(FILTER_CHAIN_METADATA, [address])
        }
    }

    /// Reads a filter chain's metadata; `None` when it does not say.
    ///
    /// # Errors
    /// When there is metadata under [`FILTER_CHAIN_METADATA`] without an
    /// `IP:PORT` in it, or with a `tls` that is not true or false.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, MeshError> {
        let Some(fields) = ours(metadata, FILTER_CHAIN_METADATA)? else {
            return Ok(None);
        };
        let text = fields.string("address")?;
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        let address = address.ok_or_else(|| MeshError::Address(excerpt(text)))?;
        let tls = match fields.kind("tls") {
            None => false,
            Some(Kind::BoolValue(tls)) => *tls,
            Some(_) => return Err(fields.missing("tls", "boolean")),
        };
        Ok(Some(Self { address, tls }))
    }
}

/// Who a sidecar says it is when it opens an xDS stream (Envoy `core.v3.Node`).
///
/// The node's id is `<namespace>/<workload>`, its user agent is
/// [`USER_AGENT`], and its metadata holds `namespace`, `workload` and
/// `serviceAccount`. All of it is a claim: the control plane believes the
/// stream's authenticated identity, and refuses a node that contradicts it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeInfo {
    /// Name of the Workload (or Pod), a DNS subdomain.
    pub workload: String,
    /// Its namespace, a DNS label.
    pub namespace: String,
    /// Its service account, a DNS subdomain.
    pub service_account: String,
    /// Where it runs (`Node.locality.zone`); empty: where its Workload says.
    pub zone: String,
    /// Version of the program, for people who read the control plane's pages.
    pub version: String,
}

/// `Node.user_agent_name` of sidecars.
pub const USER_AGENT: &str = "pillion";

impl NodeInfo {
    /// The node that opens a stream.
    #[must_use]
    pub fn to_node(&self) -> Node {
        let text = |text: &str| Kind::StringValue(text.to_owned());
        Node {
            id: format!("{}/{}", self.namespace, self.workload),
            metadata: Some(fields([
                ("namespace", text(&self.namespace)),
                ("workload", text(&self.workload)),
                ("serviceAccount", text(&self.service_account)),
            ])),
            locality: (!self.zone.is_empty()).then(|| Locality { zone: self.zone.clone(), ..Locality::default() }),
            user_agent_name: USER_AGENT.to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(self.version.clone())),
            ..Node::default()
        }
    }

    /// Reads the node of a sidecar. The version is taken as it is, empty when
    /// the node gives none.
    ///
    /// # Errors
    /// When one of the three metadata fields is missing or not a Kubernetes
    /// name, or when the node's id is not `<namespace>/<workload>`.
    pub fn from_node(node: &Node) -> Result<Self, MeshError> {
        let empty = Struct::default();
        let fields = Fields { within: "node", fields: node.metadata.as_ref().unwrap_or(&empty) };
        let namespace = fields.name("namespace", is_label)?;
        let workload = fields.name("workload", is_subdomain)?;
        let service_account = fields.name("serviceAccount", is_subdomain)?;
        if node.id.split_once('/') != Some((&namespace, &workload)) {
            return Err(MeshError::NodeId { id: excerpt(&node.id), wanted: format!("{namespace}/{workload}") });
        }
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            _ => String::new(),
        };
        let zone = node.locality.as_ref().map(|locality| locality.zone.clone()).unwrap_or_default();
        Ok(Self { workload, namespace, service_account, zone, version })
    }
}

/// Why metadata under one of our keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// A field is absent or of another JSON type.
    #[error("metadata {within}: {field} is missing or is not a {wanted}")]
    Field {
        /// The metadata's key, or `node`.
        within: &'static str,
        /// The field in it.
        field: &'static str,
        /// The JSON type that it should have.
        wanted: &'static str,
    },
    /// A number that is no port.
    #[error("metadata {within}: {field} {number} is not a port from 1 to 65535")]
    Port {
        /// The metadata's key.
        within: &'static str,
        /// The field in it.
        field: &'static str,
        /// What it holds, as text: JSON numbers have no `Eq`.
        number: String,
    },
    /// An endpoint's identity that is no SPIFFE id of a service account.
    #[error("metadata {ENDPOINT_METADATA}: identity: {0}")]
    Identity(#[source] SpiffeIdError),
    /// An application address that is no `IP:PORT`.
    #[error("metadata {FILTER_CHAIN_METADATA}: address {0:?} is not IP:PORT")]
    Address(String),
    /// A node's field that is no Kubernetes name.
    #[error("node: {field} {value:?} is not a Kubernetes name")]
    Name {
        /// The metadata field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// A node whose id and metadata differ.
    #[error("node id {id:?} contradicts its metadata, which says {wanted:?}")]
    NodeId {
        /// The node's id.
        id: String,
        /// The id that its metadata gives.
        wanted: String,
    },
    /// Our key appears as `typed_filter_metadata`, which receivers must prefer
    /// and which we never send.
    #[error("metadata {0} is typed: want plain fields in filter_metadata")]
    Typed(&'static str),
}

fn metadata<const N: usize>(key: &str, content: [(&str, Kind); N]) -> Metadata {
    Metadata { filter_metadata: HashMap::from([(key.to_owned(), fields(content))]), ..Metadata::default() }
}

fn fields<const N: usize>(content: [(&str, Kind); N]) -> Struct {
    let value = |kind| Value { kind: Some(kind) };
    Struct { fields: content.into_iter().map(|(key, kind)| (key.to_owned(), value(kind))).collect() }
}

/// The fields under `key`; typed metadata of the same key would take
/// precedence in Envoy, so it is refused rather than overlooked.
pub(crate) fn ours<'a>(metadata: &'a Metadata, key: &'static str) -> Result<Option<Fields<'a>>, MeshError> {
    if metadata.typed_filter_metadata.contains_key(key) {
        return Err(MeshError::Typed(key));
    }
    let fields = metadata.filter_metadata.get(key);
    Ok(fields.map(|fields| Fields { within: key, fields }))
}

/// A JSON object and where it stands, for errors that name the place.
pub(crate) struct Fields<'a> {
    pub(crate) within: &'static str,
    pub(crate) fields: &'a Struct,
}

impl<'a> Fields<'a> {
    fn string(&self, field: &'static str) -> Result<&'a str, MeshError> {
        match self.kind(field) {
            Some(Kind::StringValue(text)) => Ok(text),
            _ => Err(self.missing(field, "string")),
        }
    }

    fn name(&self, field: &'static str, is_name: fn(&str) -> bool) -> Result<String, MeshError> {
        let value = self.string(field)?;
        if !is_name(value) {
            let value = excerpt(value);
            return Err(MeshError::Name { field, value });
        }
        Ok(value.to_owned())
    }

    fn port(&self, field: &'static str) -> Result<u16, MeshError> {
        let Some(Kind::NumberValue(number)) = self.kind(field) else {
            return Err(self.missing(field, "number"));
        };
        let port = *number as u16;
        // A cast saturates and truncates, and makes 0 of NaN: what does not
        // come back unchanged was no port.
        if port == 0 || f64::from(port).to_bits() != number.to_bits() {
            return Err(MeshError::Port { within: self.within, field, number: number.to_string() });
        }
        Ok(port)
    }

    pub(crate) fn kind(&self, field: &str) -> Option<&'a Kind> {
        self.fields.fields.get(field)?.kind.as_ref()
    }

    pub(crate) fn missing(&self, field: &'static str, wanted: &'static str) -> MeshError {
        MeshError::Field { within: self.within, field, wanted }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xds::{Any, ListValue};

    fn identity() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap()
    }

    fn endpoint(fields: &[(&str, Kind)]) -> Metadata {
        let fields = fields.iter().cloned().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
        Metadata {
            filter_metadata: HashMap::from([(ENDPOINT_METADATA.to_owned(), Struct { fields })]),
            ..Metadata::default()
        }
    }

    /// JSON values of every kind, some of them plausible.
    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            any::<f64>().prop_map(Kind::NumberValue),
            (0u16..).prop_map(|port| Kind::NumberValue(port.into())),
            ".{0,20}".prop_map(Kind::StringValue),
            Just(Kind::StringValue(identity().to_string())),
            any::<bool>().prop_map(Kind::BoolValue),
            any::<i32>().prop_map(Kind::NullValue),
            Just(Kind::StructValue(Struct::default())),
            Just(Kind::ListValue(ListValue::default())),
        ]
    }

    proptest! {
        #[test]
        fn endpoints_round_trip(port in 1u16.., namespace in "[a-z]{1,9}", account in "[a-z]{1,9}") {
            let trust_domain = "cluster.local".parse().unwrap();
            let identity = SpiffeId::new(&trust_domain, &namespace, &account).unwrap();
            let endpoint = MeshEndpoint { port, identity };
            prop_assert_eq!(
                MeshEndpoint::from_metadata(&endpoint.to_metadata()),
                Ok(Some(endpoint))
            );
        }

        #[test]
        fn malformed_endpoints_are_refused_and_good_ones_keep_their_values(
            port in kind(), identity in kind()
        ) {
            let metadata = endpoint(&[("port", port), ("identity", identity)]);
            if let Ok(parsed) = MeshEndpoint::from_metadata(&metadata) {
                prop_assert_eq!(parsed.map(|endpoint| endpoint.to_metadata()), Some(metadata));
            }
        }

        #[test]
        fn applications_round_trip(ip in any::<std::net::IpAddr>(), port in 1u16.., tls in any::<bool>()) {
            let application = Application { address: SocketAddr::new(ip, port), tls };
            prop_assert_eq!(Application::from_metadata(&application.to_metadata()), Ok(Some(application)));
        }

        #[test]
        fn nodes_round_trip(
            workload in "[a-z]{1,9}(-[0-9]{1,3})?",
            namespace in "[a-z]{1,9}",
            service_account in r"[a-z]{1,9}(\.[a-z]{1,9})?",
            zone in "[a-z]{0,9}",
            version in ".{0,9}",
        ) {
            let node = NodeInfo { workload, namespace, service_account, zone, version };
            prop_assert_eq!(NodeInfo::from_node(&node.to_node()), Ok(node));
        }

        #[test]
        fn any_node_is_read_or_refused(id in ".{0,20}", values in prop::array::uniform3(kind())) {
            let names = ["namespace", "workload", "serviceAccount"];
            let fields = names.into_iter().zip(values);
            let fields = fields.map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
            let metadata = Some(Struct { fields: fields.collect() });
            let node = Node { id, metadata, ..Node::default() };
            if let Ok(info) = NodeInfo::from_node(&node) {
                prop_assert_eq!(info.to_node().id, node.id);
            }
        }
    }

    #[test]
    fn metadata_of_others_is_passed_over() {
        let others = metadata("envoy.lb", [("canary", Kind::BoolValue(true))]);
        assert_eq!(MeshEndpoint::from_metadata(&others), Ok(None));
        assert_eq!(Application::from_metadata(&others), Ok(None));
    }

    #[test]
    fn endpoints_without_port_or_identity_are_refused() {
        let port = || ("port", Kind::NumberValue(15008.0));
        let named = || ("identity", Kind::StringValue(identity().to_string()));
        for fields in [vec![], vec![port()], vec![named()]] {
            assert!(matches!(MeshEndpoint::from_metadata(&endpoint(&fields)), Err(MeshError::Field { .. })));
        }
        for number in [0.0, -0.0, -1.0, 0.5, 80.5, 65536.0, f64::NAN, f64::INFINITY] {
            let metadata = endpoint(&[("port", Kind::NumberValue(number)), named()]);
            assert!(matches!(MeshEndpoint::from_metadata(&metadata), Err(MeshError::Port { .. })), "{number}");
        }
    }

    #[test]
    fn malformed_applications_are_refused() {
        let address = |text: &str| ("address", Kind::StringValue(text.to_owned()));
        for fields in [
            vec![],
            vec![address("127.0.0.1:0")],
            vec![address("localhost:80")],
            vec![address("127.0.0.1:80"), ("tls", Kind::StringValue("yes".to_owned()))],
        ] {
            let fields = fields.into_iter().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
            let key = FILTER_CHAIN_METADATA.to_owned();
            let metadata =
                Metadata { filter_metadata: HashMap::from([(key, Struct { fields })]), ..Metadata::default() };
            assert!(Application::from_metadata(&metadata).is_err(), "{metadata:?}");
        }
    }

    #[test]
    fn typed_metadata_under_our_key_is_refused_rather_than_overlooked() {
        let mut metadata = Metadata::default();
        let key = ENDPOINT_METADATA.to_owned();
        metadata.typed_filter_metadata.insert(key, Any::default());
        assert_eq!(MeshEndpoint::from_metadata(&metadata), Err(MeshError::Typed(ENDPOINT_METADATA)));
    }

    #[test]
    fn a_node_whose_id_names_another_workload_is_refused() {
        let info = NodeInfo {
            workload: "orders-1".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "orders".to_owned(),
            zone: String::new(),
            version: String::new(),
        };
        let mut node = info.to_node();
        assert_eq!(node.id, "shop/orders-1");
        node.id = "shop/payment-1".to_owned();
        assert!(matches!(NodeInfo::from_node(&node), Err(MeshError::NodeId { .. })));
    }
}
