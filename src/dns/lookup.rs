//! Asking for the addresses of one name, for ourselves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::forward::forward;
use super::message::{Family, Meaning, Query, Transport, is_truncated, meaning};
use super::upstream::Upstream;
use crate::telemetry::Metrics;

/// Names that are read from here come before those of nameservers, as in any program.
const HOSTS: &str = "/etc/hosts";
/// How long what [`HOSTS`] says holds.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// The largest answer over UDP that we ask for: what certainly is not cut to pieces on its way (DNS flag day 2020).
const MAX_UDP: u16 = 1232;

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
}

impl Lookups {
    /// Asks those of `upstream`, but not ourselves, who listen on `own`.
    pub fn new(upstream: Upstream, own: Vec<SocketAddr>, metrics: Arc<Metrics>) -> Self {
        Self { upstream, own, metrics }
    }

    /// The addresses of `name` in `family`, and counts what came of it. The name is absolute: no search list is applied.
    /// `/etc/hosts` comes first, and `localhost` is this machine (RFC 6761, section 6.3). A nameserver has 2 s and two tries;
    /// all together have `patience`.
    ///
    /// # Cancel safety
    /// Nothing is left behind, and nothing is counted.
    pub async fn find(&self, name: &str, family: Family, patience: Duration) -> Found {
        let found = match known_here(name, family) {
            Some(found) => found,
            None => timeout(patience, self.ask(name, family))
                .await
                .unwrap_or_else(|_late| Found::Failed(format!("no nameserver answers within {patience:?}"))),
        };
        self.metrics.name_lookup(match &found {
            Found::Addresses(..) => "found",
            Found::Nothing(_) => "empty",
            Found::Failed(_) => "failed",
        });
        found
    }

    async fn ask(&self, name: &str, family: Family) -> Found {
        let Some(query) = query(name, family) else { return Found::Failed("it is no name".to_owned()) };
        let mut answer = forward(&query, Transport::Udp, &self.upstream, &self.own).await;
        if answer.as_ref().is_ok_and(|answer| is_truncated(answer)) {
            answer = forward(&query, Transport::Tcp, &self.upstream, &self.own).await;
        }
        match answer {
            Ok(answer) => read(&answer, family),
            Err(Some(_)) => Found::Failed("the nameservers say SERVFAIL or REFUSED".to_owned()),
            Err(None) => Found::Failed("no nameserver answers".to_owned()),
        }
    }
}

fn query(name: &str, family: Family) -> Option<Query> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Question::query(name, record_type(family)));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    message.edns = Some(edns);
    Query::parse(message.to_vec().ok()?).ok()
}

fn record_type(family: Family) -> RecordType {
    match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}

/// The addresses of an answer, whatever aliases led to them. It holds as long as the shortest of its records.
fn read(answer: &[u8], family: Family) -> Found {
    let said = meaning(answer);
    let Ok(message) = Message::from_vec(answer) else {
        return Found::Failed("the answer is malformed".to_owned());
    };
    let address = |data: &RData| match (data, family) {
        (RData::A(address), Family::V4) => Some(IpAddr::V4(address.0)),
        (RData::AAAA(address), Family::V6) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let mut addresses = Vec::new();
    for found in message.answers.iter().filter_map(|record| address(&record.data)) {
        // 0.0.0.0 is how some resolvers say that a name is blocked; dialled, it would be this machine.
        let is_host = !found.is_unspecified() && !found.is_multicast();
        if is_host && !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    // RFC 2181, section 8: one with the highest bit means 0.
    let ttl = message.answers.iter().map(|record| if record.ttl >> 31 == 0 { record.ttl } else { 0 }).min();
    match said {
        Meaning::Positive if !addresses.is_empty() => {
            Found::Addresses(addresses, Duration::from_secs(ttl.unwrap_or_default().into()))
        }
        Meaning::Positive => Found::Nothing("it has no address of this family"),
        Meaning::Negative if message.metadata.response_code == hickory_proto::op::ResponseCode::NXDomain => {
            Found::Nothing("there is no such name (NXDOMAIN)")
        }
        Meaning::Negative => Found::Nothing("it has no address of this family"),
        Meaning::Failure | Meaning::Other => {
            Found::Failed(format!("the nameserver says {}", message.metadata.response_code))
        }
    }
}

fn known_here(name: &str, family: Family) -> Option<Found> {
    if name == "localhost" || name.ends_with(".localhost") {
        let address = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        return Some(Found::Addresses(vec![address], HOSTS_TTL));
    }
    let text = fs::read_to_string(HOSTS).ok()?;
    let all = in_hosts(&text, name);
    if all.is_empty() {
        return None;
    }
    let addresses: Vec<IpAddr> =
        all.into_iter().filter(|address| address.is_ipv4() == (family == Family::V4)).collect();
    Some(match addresses.as_slice() {
        [] => Found::Nothing("/etc/hosts has no address of this family"),
        _ => Found::Addresses(addresses, HOSTS_TTL),
    })
}

/// The addresses of a name in a file as hosts(5) describes it.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let all = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};

    use super::*;

    fn answer(code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
        let mut message = Message::from_vec(&query("api.example.com", Family::V4).unwrap().forwarded(7)).unwrap();
        message = message.into_response();
        message.metadata.response_code = code;
        message.answers = records;
        message.to_vec().unwrap()
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
            let addresses = last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last).into()).collect();
            Found::Addresses(addresses, Duration::from_secs(ttl))
        };
        let nothing = Found::Nothing("it has no address of this family");
        for (code, records, expected) in [
            (ResponseCode::NoError, vec![v4(2, 60), v4(1, 30)], found(&[2, 1], 30)),
            (ResponseCode::NoError, vec![alias(5), v4(1, 30), v4(1, 30)], found(&[1], 5)),
            (ResponseCode::NoError, vec![v4(1, u32::MAX)], found(&[1], 0)),
            (ResponseCode::NoError, vec![alias(5), v6], nothing.clone()),
            (ResponseCode::NoError, vec![record(9, RData::A(A::new(0, 0, 0, 0)))], nothing.clone()),
            (ResponseCode::NoError, vec![], nothing),
            (ResponseCode::NXDomain, vec![], Found::Nothing("there is no such name (NXDOMAIN)")),
        ] {
            assert_eq!(read(&answer(code, records), Family::V4), expected);
        }
        for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
            assert!(matches!(read(&answer(code, vec![]), Family::V4), Found::Failed(_)), "{code}");
        }
        assert!(matches!(read(b"nonsense", Family::V4), Found::Failed(_)));
    }

    #[test]
    fn names_of_the_hosts_file_are_found_in_any_case() {
        let text = "127.0.0.1 localhost\n# 192.0.2.9 api.example.com\n192.0.2.1\tAPI.example.com api # ours\n\
                    2001:db8::1 api\nnonsense api\n";
        let of = |name| in_hosts(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("api.example.com"), ["192.0.2.1"]);
        assert_eq!(of("api"), ["192.0.2.1", "2001:db8::1"]);
        assert!(of("ours").is_empty());
    }
}
