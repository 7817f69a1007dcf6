use hickory_proto::op::Query as Question;
use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;

const ID: u16 = 0x1234;

/// A query as a client would send it; with EDNS when it has a payload size.
fn message(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Query {
    Query::parse(message(name, kind, payload).to_vec().unwrap()).unwrap()
}

fn v4(count: u8) -> Vec<IpAddr> {
    (0..count).map(|last| IpAddr::from([192, 0, 2, last])).collect()
}

fn v6(count: u16) -> Vec<IpAddr> {
    (0..count).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])).collect()
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[test]
fn what_is_no_query_is_refused_or_dropped() {
    let good = message("orders.shop.", RecordType::A, None).to_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, bytes, expected) in [
        ("nothing", vec![], None),
        ("less than a header", good[..11].to_vec(), None),
        ("a response", with(2, 0b1000_0001), None),
        ("a header alone", good[..12].to_vec(), Some(ResponseCode::FormErr)),
        ("no question", with(5, 0), Some(ResponseCode::FormErr)),
        ("two questions", with(5, 2), Some(ResponseCode::FormErr)),
        ("65280 questions", with(4, 255), Some(ResponseCode::FormErr)),
        ("half a question", good[..good.len() - 1].to_vec(), Some(ResponseCode::FormErr)),
        ("a pointer as name", with(12, 0xc0), Some(ResponseCode::FormErr)),
        ("a record that is not there", with(11, 1), Some(ResponseCode::FormErr)),
        ("an update", with(2, 5 << 3), Some(ResponseCode::NotImp)),
        ("a notification", with(2, 4 << 3), Some(ResponseCode::NotImp)),
    ] {
        let Malformed { answer } = Query::parse(bytes).unwrap_err();
        let answer = answer.map(|answer| Message::from_vec(&answer).unwrap());
        assert_eq!(answer.as_ref().map(|answer| answer.metadata.response_code), expected, "{what}");
        assert!(answer.is_none_or(|answer| answer.metadata.id == ID), "{what}");
    }
}

#[test]
fn addresses_of_the_family_that_is_asked_for_are_answered() {
    let both = [&v4(2)[..], &v6(1)].concat();
    for (kind, known, expected) in [
        (RecordType::A, &both, v4(2)),
        (RecordType::AAAA, &both, v6(1)),
        (RecordType::AAAA, &v4(2), vec![]),
        (RecordType::A, &vec![], vec![]),
    ] {
        let query = query("Orders.sHop.", kind, None);
        assert_eq!(query.name(), "orders.shop.");
        let bytes = query.answer(known, query.limit(Transport::Udp)).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(addresses(&answer), expected, "{kind}");
        assert!(bytes.windows(7).any(|window| window == b"\x06Orders"), "the case of the question");
        assert!(answer.answers.iter().all(|record| record.ttl == 30));
        let metadata = answer.metadata;
        assert_eq!((metadata.id, metadata.response_code), (ID, ResponseCode::NoError));
        assert!(metadata.recursion_desired && metadata.recursion_available && !metadata.truncation);
        assert_eq!(answer.edns, None, "EDNS only to those who speak it");
    }
}

#[test]
fn an_answer_is_as_long_as_the_client_takes_it() {
    for (kind, known, payload, transport, least) in [
        // 512 - 12 (header) - 17 (question) = 483, / 16 = 30; with EDNS 11 bytes less
        (RecordType::A, v4(30), None, Transport::Udp, 30),
        (RecordType::A, v4(31), None, Transport::Udp, 30),
        (RecordType::A, v4(200), Some(100), Transport::Udp, 29), // less than 512 means 512 (RFC 6891, 6.2.3)
        (RecordType::A, v4(200), Some(1232), Transport::Udp, 74),
        (RecordType::A, v4(190), Some(4096), Transport::Udp, 190),
        (RecordType::AAAA, v6(1000), Some(65535), Transport::Udp, 130), // no more than 4096
        (RecordType::AAAA, v6(1000), None, Transport::Tcp, 1000),
        (RecordType::AAAA, v6(5000), Some(512), Transport::Tcp, 1600),
    ] {
        let query = query("orders.shop.", kind, payload);
        let limit = query.limit(transport);
        let bytes = query.answer(&known, limit).unwrap();
        assert!(bytes.len() <= usize::from(limit), "{} bytes", bytes.len());
        let answer = Message::from_vec(&bytes).unwrap();
        let count = answer.answers.len();
        assert!(count >= least, "{count} of {} {kind} {payload:?} {transport:?}", known.len());
        assert_eq!(answer.metadata.truncation, count < known.len());
        assert_eq!(answer.edns.as_ref().map(|edns| edns.flags().dnssec_ok), payload.map(|_| true));
        let mut distinct = addresses(&answer);
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), count);
    }
}

#[test]
fn answers_begin_at_another_address_each_time() {
    let first = |id: u16| {
        let mut message = message("orders.shop.", RecordType::A, None);
        message.metadata.id = id;
        let query = Query::parse(message.to_vec().unwrap()).unwrap();
        addresses(&Message::from_vec(&query.answer(&v4(3), 512).unwrap()).unwrap())[0]
    };
    assert_eq!([first(0), first(1), first(2), first(3)], [v4(3)[0], v4(3)[1], v4(3)[2], v4(3)[0]]);
}

#[test]
fn a_later_version_of_edns_is_refused() {
    let mut message = message("orders.shop.", RecordType::A, Some(1232));
    message.edns.as_mut().unwrap().set_version(1);
    let query = Query::parse(message.to_vec().unwrap()).unwrap();
    let answer = Message::from_vec(&query.answer(&v4(1), 512).unwrap()).unwrap();
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert_eq!((answer.edns.unwrap().version(), answer.answers.len()), (0, 0));
}

#[test]
fn an_answer_is_told_from_what_is_none() {
    let query = query("orders.example.com.", RecordType::A, Some(1232));
    let asked = query.forwarded(77);
    assert_eq!(asked[..2], 77u16.to_be_bytes());
    let mut good = asked.clone();
    good[2] |= 0b1000_0000;
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        bytes
    };
    let kind = 12 + "orders.example.com.".len() + 1; // after the name: high byte of the type
    for (what, answer, expected) in [
        ("the answer", good.clone(), true),
        ("in another case", with(&[(13, b'O')]), true),
        ("our own query", asked.clone(), false),
        ("another id", with(&[(0, 9)]), false),
        ("another opcode", with(&[(2, 0b1010_0000)]), false),
        ("another name", with(&[(13, b'x')]), false),
        ("another type", with(&[(kind + 1, 28)]), false),
        // Types are no letters: 0x41 and 0x61 are different ones.
        ("another class", with(&[(kind + 3, 3)]), false),
        ("cut short", good[..20].to_vec(), false),
        ("without its question", with(&[(5, 0)]), false),
        ("without its question, an error", with(&[(5, 0), (3, 1)])[..12].to_vec(), true),
        ("two questions", with(&[(5, 2)]), false),
        ("nothing", vec![], false),
    ] {
        assert_eq!(query.is_answered_by(&answer, 77), expected, "{what}");
    }
    assert_eq!(query.restored(good.clone())[..2], ID.to_be_bytes());
    assert_eq!(query.restored(good.clone())[2..], good[2..]);
}

#[test]
fn the_meaning_of_an_answer_is_in_its_header() {
    let header = |flags: u8, low: u8, answers: u8| vec![0, 0, 0x80 | flags, low, 0, 1, 0, answers, 0, 0, 0, 0];
    for (answer, expected) in [
        (header(0, 0, 1), Meaning::Positive),
        (header(0, 0, 0), Meaning::Negative),
        (header(0, 3, 0), Meaning::Negative),
        (header(0, 3, 1), Meaning::Negative), // an alias to nothing
        (header(0b10, 0, 1), Meaning::Other),
        (header(0, 2, 0), Meaning::Failure),
        (header(0, 5, 0), Meaning::Failure),
        (header(0b10, 2, 0), Meaning::Failure),
        (header(0, 1, 0), Meaning::Other),
        (vec![], Meaning::Other),
    ] {
        assert_eq!(meaning(&answer), expected, "{answer:?}");
    }
}

#[test]
fn queries_are_the_same_but_for_case_id_and_payload_size() {
    let key = |name, kind, payload| query(name, kind, payload).key();
    let plain = key("a.example.", RecordType::A, None);
    assert_eq!(plain, key("A.eXample.", RecordType::A, None));
    assert_ne!(plain, key("b.example.", RecordType::A, None));
    assert_ne!(plain, key("a.example.", RecordType::AAAA, None));
    assert_ne!(plain, key("a.example.", RecordType::A, Some(512)), "with DNSSEC's records");
    assert_eq!(key("a.example.", RecordType::A, Some(1232)), key("a.example.", RecordType::A, Some(512)));
}

#[test]
fn an_old_answer_is_given_anew() {
    let mut old = message("a.example.", RecordType::A, Some(1232)).into_response();
    let name = Name::from_ascii("a.example.").unwrap();
    for address in [1, 2] {
        old.add_answer(Record::from_rdata(name.clone(), 86400, RData::A(A::new(192, 0, 2, address))));
    }
    let old = old.to_vec().unwrap();

    let query = query("A.example.", RecordType::A, None);
    let answer = Message::from_vec(&query.stale_answer(&old, 512).unwrap()).unwrap();
    assert_eq!(addresses(&answer), [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
    assert!(answer.answers.iter().all(|record| record.ttl == 30));
    assert_eq!((answer.metadata.id, answer.edns), (ID, None));
    assert!(!answer.metadata.truncation);

    let short = query.stale_answer(&old, 40).unwrap();
    let answer = Message::from_vec(&short).unwrap();
    assert!(short.len() <= 40 && answer.metadata.truncation && answer.answers.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_dropped(mut bytes: Vec<u8>, like_a_query: bool) {
        if like_a_query && bytes.len() > 12 {
            bytes[2] &= 1;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let id = bytes.first_chunk::<2>().copied();
        match Query::parse(bytes.clone()) {
            Ok(query) => {
                let answer = query.servfail().unwrap();
                prop_assert!(query.is_answered_by(&answer, u16::from_be_bytes(id.unwrap())));
                query.stale_answer(&bytes, 512);
            }
            Err(Malformed { answer: Some(answer) }) => {
                prop_assert_eq!(answer.first_chunk::<2>().copied(), id);
                prop_assert!(answer[2] & 0x80 != 0);
            }
            Err(Malformed { answer: None }) => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
        }
    }
}
