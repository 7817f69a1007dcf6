//! Reading a query, answering it, and telling whether an upstream's message is its answer. No I/O.

use std::net::IpAddr;
use std::ops::Range;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

/// How a message came and its answer goes; also the metrics' label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each (RFC 1035, section 4.2.1).
    Udp,
    /// After its length in two bytes (RFC 1035, section 4.2.2; RFC 7766).
    Tcp,
}

impl Transport {
    /// `udp` or `tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Seconds that an answer of ours, or an old one, may be kept (RFC 8767, section 4, recommends 30 for the latter).
pub const TTL: u32 = 30;
/// The size of UDP messages that we take, and at most send: RFC 6891, section 6.2.5 suggests it.
pub const MAX_UDP: u16 = 4096;

/// Length of a message's header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// What a record takes beside its owner's name and its data: type, class, TTL and length.
const RECORD: usize = 2 + 2 + 4 + 2;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// A well-formed query for one name.
#[derive(Debug)]
pub struct Query {
    raw: Vec<u8>,
    message: Message,
    /// The name in lower case, as text, with the dot at its end.
    name: String,
    /// Where the question stands in `raw`: its name, then type and class.
    question: Range<usize>,
}

/// Not a query that can be answered or forwarded.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What to say to that; nothing to what is no query at all, lest two servers talk to each other for ever.
    pub answer: Option<Vec<u8>>,
}

/// The addresses of which family does a query ask for?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Query {
    /// Reads a message from a client.
    ///
    /// # Errors
    /// [`Malformed`], with FORMERR or NOTIMP to answer when there is at least a header (RFC 1035, section 4.1.1).
    pub fn parse(raw: Vec<u8>) -> Result<Self, Malformed> {
        let Some(&[id_high, id_low, flags, _, queries_high, queries_low, ..]) = raw.first_chunk::<HEADER>() else {
            return Err(Malformed { answer: None });
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let opcode = OpCode::from_u8((flags >> 3) & 0b1111);
        if flags & 0b1000_0000 != 0 {
            return Err(Malformed { answer: None }); // It is a response.
        }
        let refuse = |code| Err(Malformed { answer: error(id, opcode, flags & 1 != 0, code) });
        if opcode != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        // Exactly one question: RFC 9619.
        if [queries_high, queries_low] != [0, 1] {
            return refuse(ResponseCode::FormErr);
        }
        let Some(question) = question(&raw) else { return refuse(ResponseCode::FormErr) };
        let message = match Message::from_vec(&raw) {
            Ok(message) if message.queries.len() == 1 => message,
            Ok(_) | Err(_) => return refuse(ResponseCode::FormErr),
        };
        let name = message.queries.iter().map(|query| query.name().to_ascii().to_ascii_lowercase()).collect();
        Ok(Self { raw, message, name, question })
    }

    /// The name that is asked for, in lower case and with the dot at its end.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which addresses are asked for; none: something else is.
    pub fn family(&self) -> Option<Family> {
        let query = self.message.queries.first().filter(|query| query.query_class() == DNSClass::IN)?;
        match query.query_type() {
            RecordType::A => Some(Family::V4),
            RecordType::AAAA => Some(Family::V6),
            _ => None,
        }
    }

    /// The longest answer that the client takes.
    pub fn limit(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Udp => self.message.max_payload().min(MAX_UDP),
            Transport::Tcp => u16::MAX,
        }
    }

    /// What makes two queries the same: the question, and whether DNSSEC's records belong to the answer.
    pub fn key(&self) -> Box<[u8]> {
        let mut key = self.raw.get(self.question.clone()).unwrap_or_default().to_vec();
        let name = key.len().saturating_sub(4);
        key.get_mut(..name).unwrap_or_default().make_ascii_lowercase();
        let dnssec = self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        key.extend([u8::from(dnssec), u8::from(self.message.metadata.checking_disabled)]);
        key.into()
    }

    /// The query as the client sent it, but with `id`.
    pub fn forwarded(&self, id: u16) -> Vec<u8> {
        with_id(self.raw.clone(), id)
    }

    /// Is `answer` the one to this query when it was forwarded with `id`? (RFC 5452, section 9.1)
    pub fn is_answered_by(&self, answer: &[u8], id: u16) -> bool {
        let Some(&[id_high, id_low, flags, low_flags, queries_high, queries_low, ..]) = answer.first_chunk::<HEADER>()
        else {
            return false;
        };
        let is_response = flags & 0b1111_1000 == 0b1000_0000; // QR, and the opcode of a query
        let same_question = match [queries_high, queries_low] {
            [0, 1] => {
                let (ours, theirs) = (self.raw.get(self.question.clone()), answer.get(self.question.clone()));
                ours.zip(theirs).is_some_and(|(ours, theirs)| same_question(ours, theirs))
            }
            // Servers that could not even read the question leave it out.
            [0, 0] => low_flags & 0b1111 != 0,
            _ => false,
        };
        u16::from_be_bytes([id_high, id_low]) == id && is_response && same_question
    }

    /// An upstream's answer for our client: the same but for the id.
    pub fn restored(&self, answer: Vec<u8>) -> Vec<u8> {
        with_id(answer, self.message.metadata.id)
    }

    /// An answer with those of `addresses` that are asked for, as many as `limit` bytes hold.
    ///
    /// They begin at another one for each query, since many clients take the first.
    pub fn answer(&self, addresses: &[IpAddr], limit: u16) -> Option<Vec<u8>> {
        let mut answer = self.reply();
        if self.message.version() > 0 {
            answer.metadata.response_code = ResponseCode::BADVERS; // RFC 6891, section 6.1.3
            return answer.to_vec().ok();
        }
        let name = self.message.queries.first()?.name();
        let (family, length) = match self.family()? {
            Family::V4 => (Family::V4, 4),
            Family::V6 => (Family::V6, 16),
        };
        let records: Vec<RData> = addresses.iter().filter_map(|address| rdata(*address, family)).collect();
        // How short the owners' names become is the encoder's choice. The question has the name and four bytes more.
        let longest = self.question.len() - 4 + RECORD + length;
        let most = (usize::from(u16::MAX) - 512) / longest; // With room for the rest of the message.
        let first = usize::from(self.message.metadata.id) % records.len().max(1);
        let turned = records.iter().cycle().skip(first).take(records.len().min(most));
        answer.answers = turned.map(|data| Record::from_rdata(name.clone(), TTL, data.clone())).collect();
        loop {
            answer.metadata.truncation = answer.answers.len() < records.len();
            let bytes = answer.to_vec().ok()?;
            let excess = bytes.len().saturating_sub(limit.into());
            if excess == 0 {
                return Some(bytes);
            }
            let fewer = answer.answers.len().checked_sub(excess.div_ceil(longest))?;
            answer.answers.truncate(fewer);
        }
    }

    /// An upstream's answer of some time ago once more (RFC 8767, section 4).
    pub fn stale_answer(&self, raw: &[u8], limit: u16) -> Option<Vec<u8>> {
        let old = Message::from_vec(raw).ok()?;
        let mut answer = self.reply();
        answer.metadata.authentic_data = old.metadata.authentic_data;
        (answer.answers, answer.authorities, answer.additionals) = (old.answers, old.authorities, old.additionals);
        for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals) {
            record.ttl = TTL;
        }
        let bytes = answer.to_vec().ok()?;
        if bytes.len() <= usize::from(limit) { Some(bytes) } else { answer.truncate().to_vec().ok() }
    }

    /// An answer that there is none.
    pub fn servfail(&self) -> Option<Vec<u8>> {
        let mut answer = self.reply();
        answer.metadata.response_code = ResponseCode::ServFail;
        answer.to_vec().ok()
    }

    /// An answer with nothing in it yet. The question comes back as it was written (0x20), EDNS only to those who
    /// speak it (RFC 6891, section 7).
    fn reply(&self) -> Message {
        let mut reply = Message::response(self.message.metadata.id, OpCode::Query);
        reply.metadata = Metadata::response_from_request(&self.message.metadata);
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&self.message.queries);
        reply.edns = self.message.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        reply
    }
}

fn rdata(address: IpAddr, family: Family) -> Option<RData> {
    match (address, family) {
        (IpAddr::V4(address), Family::V4) => Some(RData::A(A(address))),
        (IpAddr::V6(address), Family::V6) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    }
}

/// What an upstream's answer means for those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It has what was asked for, whole.
    Positive,
    /// There is no such thing.
    Negative,
    /// The server could not, or would not, answer: SERVFAIL or REFUSED.
    Failure,
    /// Anything else, or only a part of it.
    Other,
}

/// What does a message mean that is an answer?
pub fn meaning(answer: &[u8]) -> Meaning {
    let Some(&[_, _, flags, low_flags, _, _, high, low, ..]) = answer.first_chunk::<HEADER>() else {
        return Meaning::Other;
    };
    let (truncated, answers) = (flags & 0b10 != 0, u16::from_be_bytes([high, low]));
    match low_flags & 0b1111 {
        SERVFAIL | REFUSED => Meaning::Failure,
        _ if truncated => Meaning::Other,
        0 if answers > 0 => Meaning::Positive,
        0 | NXDOMAIN => Meaning::Negative,
        _ => Meaning::Other,
    }
}

/// Where the question stands. It is the first thing in the message, and so cannot be compressed.
fn question(raw: &[u8]) -> Option<Range<usize>> {
    let mut at = HEADER;
    loop {
        match usize::from(*raw.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 1 + 4; // the root's label, type and class
    (end <= raw.len()).then_some(HEADER..end)
}

/// Names are the same in any case, types and classes are numbers.
fn same_question(ours: &[u8], theirs: &[u8]) -> bool {
    let name = ours.len().saturating_sub(4);
    ours.len() == theirs.len()
        && ours.get(name..) == theirs.get(name..)
        && ours.get(..name).zip(theirs.get(..name)).is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs))
}

fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
    message
}

fn error(id: u16, opcode: OpCode, recursion_desired: bool, code: ResponseCode) -> Option<Vec<u8>> {
    let mut answer = Message::new(id, MessageType::Response, opcode);
    answer.metadata.recursion_desired = recursion_desired;
    answer.metadata.response_code = code;
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests;
