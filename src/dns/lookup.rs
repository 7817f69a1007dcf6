//! Asking for the addresses of one name, for ourselves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::message::Family;
use super::upstream::Upstream;
use crate::telemetry::Metrics;

/// How long what `/etc/hosts` says holds.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// How long one question to the nameservers may take, and how often it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: usize = 1;

/// What is known of a name's addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These, for so long. Never empty.
    Addresses(Vec<IpAddr>, Duration),
    /// It has none: NXDOMAIN, or no record of that type. Says which.
    Nothing(&'static str),
    /// Nobody could say. Says why.
    Failed(String),
}

/// Asks nameservers. One for all names.
#[derive(Debug)]
pub struct Lookups {
    upstream: Upstream,
    /// Where we answer DNS ourselves.
    own: Vec<SocketAddr>,
    metrics: Arc<Metrics>,
    /// Asks these nameservers; made anew when they are others.
    resolver: Mutex<Option<(Vec<SocketAddr>, TokioResolver)>>,
}

impl Lookups {
    /// Asks those of `upstream`, but not ourselves, who listen on `own`.
    pub fn new(upstream: Upstream, own: Vec<SocketAddr>, metrics: Arc<Metrics>) -> Self {
        Self { upstream, own, metrics, resolver: Mutex::default() }
    }

    /// The addresses of `name` in `family`, and counts what came of it. The name is absolute: no search list is applied.
    /// `/etc/hosts` comes first, and `localhost` is this machine (RFC 6761, section 6.3). The nameservers have 2 s and two
    /// tries; all together have `patience`.
    ///
    /// # Cancel safety
    /// Nothing is left behind, and nothing is counted.
    pub async fn find(&self, name: &str, family: Family, patience: Duration) -> Found {
        let found = match query(name, family) {
            Some(query) => match in_hosts(&query, &Hosts::from_system().unwrap_or_default()) {
                Some(found) => found,
                None => timeout(patience, self.ask(query, family))
                    .await
                    .unwrap_or_else(|_late| Found::Failed(format!("no nameserver answers within {patience:?}"))),
            },
            None => Found::Failed("it is no name".to_owned()),
        };
        self.metrics.name_lookup(match &found {
            Found::Addresses(..) => "found",
            Found::Nothing(_) => "empty",
            Found::Failed(_) => "failed",
        });
        found
    }

    async fn ask(&self, query: Query, family: Family) -> Found {
        match self.resolver() {
            Ok(resolver) => read(resolver.lookup(query.name().clone(), query.query_type()).await, family),
            Err(error) => Found::Failed(format!("no nameserver can be asked: {error}")),
        }
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let servers = self.upstream.servers(&self.own, Instant::now());
        let mut kept = self.resolver.lock();
        if let Some((of, resolver)) = kept.as_ref()
            && *of == servers
        {
            return Ok(resolver.clone());
        }
        let resolver = resolver(&servers)?;
        *kept = Some((servers, resolver.clone()));
        Ok(resolver)
    }
}

/// It keeps nothing: how long an answer is believed is decided by who asks (`refresh`).
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let at = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
        NameServerConfig::new(address.ip(), true, connections)
    };
    let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never; // Read when it is built, and never again.
    options.timeout = PATIENCE;
    options.attempts = AGAIN;
    options.edns0 = true;
    options.preserve_intermediates = true;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

fn query(name: &str, family: Family) -> Option<Query> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(Query::query(name, record_type(family)))
}

fn record_type(family: Family) -> RecordType {
    match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}

/// The addresses of an answer, whatever aliases led to them. It holds as long as the shortest of its records.
fn read(answer: Result<Lookup, NetError>, family: Family) -> Found {
    let nothing = Found::Nothing("it has no address of this family");
    match answer {
        Ok(lookup) => {
            let addresses = addresses(lookup.answers(), family);
            // RFC 2181, section 8: one with the highest bit means 0.
            let ttl = lookup.answers().iter().map(|record| if record.ttl >> 31 == 0 { record.ttl } else { 0 }).min();
            match addresses.as_slice() {
                [] => nothing,
                _ => Found::Addresses(addresses, Duration::from_secs(ttl.unwrap_or_default().into())),
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Found::Nothing("there is no such name (NXDOMAIN)"),
            ResponseCode::NoError => nothing,
            code => Found::Failed(said(code)),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Found::Failed(said(code)),
        Err(error) => Found::Failed(format!("no nameserver answers: {error}")),
    }
}

fn said(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "the nameservers say SERVFAIL".to_owned(),
        ResponseCode::Refused => "the nameservers say REFUSED".to_owned(),
        code => format!("the nameservers say {code}"),
    }
}

fn addresses(records: &[Record], family: Family) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for found in records.iter().filter_map(|record| address(&record.data, family)) {
        // 0.0.0.0 is how some resolvers say that a name is blocked; dialled, it would be this machine.
        let is_host = !found.is_unspecified() && !found.is_multicast();
        if is_host && !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    addresses
}

fn address(data: &RData, family: Family) -> Option<IpAddr> {
    match (data, family) {
        (RData::A(address), Family::V4) => Some(IpAddr::V4(address.0)),
        (RData::AAAA(address), Family::V6) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// What hosts(5) says of a name. One that it knows in the other family only has no address of this one.
fn in_hosts(query: &Query, hosts: &Hosts) -> Option<Found> {
    let of = |family| {
        let query = Query::query(query.name().clone(), record_type(family));
        hosts.lookup_static_host(&query).map(|lookup| addresses(lookup.answers(), family)).unwrap_or_default()
    };
    let families = [of(Family::V4), of(Family::V6)];
    if families.iter().all(Vec::is_empty) {
        return None;
    }
    let [v4, v6] = families;
    let addresses = if query.query_type() == RecordType::A { v4 } else { v6 };
    Some(match addresses.as_slice() {
        [] => Found::Nothing("/etc/hosts has no address of this family"),
        _ => Found::Addresses(addresses, HOSTS_TTL),
    })
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};

    use super::*;

    fn asked() -> Query {
        query("api.example.com", Family::V4).unwrap()
    }

    fn answer(records: Vec<Record>) -> Result<Lookup, NetError> {
        Ok(Lookup::new_with_max_ttl(asked(), records))
    }

    fn record(ttl: u32, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii("api.example.com.").unwrap(), ttl, data)
    }

    #[test]
    fn an_answer_is_its_addresses_for_as_long_as_the_shortest_of_its_records_holds() {
        let v4 = |last, ttl| record(ttl, RData::A(A::new(192, 0, 2, last)));
        let alias = |ttl| record(ttl, RData::CNAME(CNAME(Name::from_ascii("cdn.example.net.").unwrap())));
        let v6 = record(9, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
        let found = |last: &[u8], ttl| {
            let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
            Found::Addresses(addresses, Duration::from_secs(ttl))
        };
        let nothing = Found::Nothing("it has no address of this family");
        for (records, expected) in [
            (vec![v4(2, 60), v4(1, 30)], found(&[2, 1], 30)),
            (vec![alias(5), v4(1, 30), v4(1, 30)], found(&[1], 5)),
            (vec![v4(1, u32::MAX)], found(&[1], 0)),
            (vec![alias(5), v6], nothing.clone()),
            (vec![record(9, RData::A(A::new(0, 0, 0, 0)))], nothing.clone()),
            (vec![], nothing.clone()),
        ] {
            assert_eq!(read(answer(records), Family::V4), expected);
        }
        let none = |code| Err(NoRecords::new(asked(), code).into());
        assert_eq!(read(none(ResponseCode::NoError), Family::V4), nothing);
        assert_eq!(read(none(ResponseCode::NXDomain), Family::V4), Found::Nothing("there is no such name (NXDOMAIN)"));
        for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
            assert!(matches!(read(none(code), Family::V4), Found::Failed(_)), "{code}");
            let error = NetError::Dns(DnsError::ResponseCode(code));
            assert!(matches!(read(Err(error), Family::V4), Found::Failed(_)), "{code}");
        }
        assert!(matches!(read(Err(NetError::Timeout), Family::V4), Found::Failed(_)));
    }

    #[test]
    fn names_of_the_hosts_file_are_found_in_any_case() {
        let text = "127.0.0.1 localhost\n# 192.0.2.9 api.example.com\n192.0.2.1\tAPI.example.com api # ours\n\
                    2001:db8::1 api\nnonsense api\n";
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_bytes()).unwrap();
        let of = |name, family| in_hosts(&query(name, family).unwrap(), &hosts);
        let is = |address: &str| Some(Found::Addresses(vec![address.parse().unwrap()], HOSTS_TTL));
        assert_eq!(of("api.example.com", Family::V4), is("192.0.2.1"));
        assert_eq!(of("Api", Family::V4), is("192.0.2.1"));
        assert_eq!(of("api", Family::V6), is("2001:db8::1"));
        let other = Some(Found::Nothing("/etc/hosts has no address of this family"));
        assert_eq!(of("api.example.com", Family::V6), other);
        assert_eq!(of("ours", Family::V4), None);
    }
}
