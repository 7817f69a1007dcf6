use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000;

fn session(carrier: Carrier, absolute: Option<u64>, idle: Option<u64>) -> Session {
    let seconds = |time: Option<u64>| time.map(Duration::from_secs);
    Session { carrier, strict: false, absolute: seconds(absolute), idle: seconds(idle) }
}

fn cookies(path: &str, lasts: bool) -> Carrier {
    Carrier::Cookie { name: "sid".into(), path: path.into(), lasts, attributes: "; SameSite=Lax".into() }
}

fn header() -> Carrier {
    Carrier::Header(HeaderName::from_static("x-session"))
}

fn request(name: &str, value: &str) -> request::Parts {
    http::Request::builder().uri("/").header(name, value).body(()).expect("valid").into_parts().0
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn address() -> SocketAddr {
    "10.0.0.1:80".parse().expect("literal")
}

fn token(ends: Option<u64>, idle: Option<u64>) -> Token {
    Token { address: address(), cluster: Some("a.b:80".into()), ends, idle }
}

#[test]
fn what_clients_bring_along_is_read_or_ignored() {
    let plain = session(header(), None, None);
    for (value, expected) in [
        (base64("10.0.0.1:80;a.b:80"), Came::Token(token(None, None))),
        (base64("10.0.0.1:80;a.b:80;7;-"), Came::Token(token(Some(7), None))),
        (base64("10.0.0.1:80"), Came::Token(Token { cluster: None, ..token(None, None) })),
        (base64("10.0.0.1:80;"), Came::Token(Token { cluster: None, ..token(None, None) })),
        (String::new(), Came::Nothing),
        ("10.0.0.1:80;a.b:80".into(), Came::Malformed),
        (base64("10.0.0.1;a.b:80"), Came::Malformed),
        (base64("localhost:80;a.b:80"), Came::Malformed),
        (base64("10.0.0.1:80;a.b:80;-7;-"), Came::Malformed),
        (base64("10.0.0.1:80;a.b:80;1;1;1"), Came::Malformed),
        (base64(&format!("10.0.0.1:80;{}", "a".repeat(2000))), Came::Malformed),
    ] {
        assert_eq!(read(&plain, &request("x-session", &value), || NOW), expected, "{value}");
    }
    let by_cookie = session(cookies("/", false), None, None);
    let cookie = format!("other=1; sid=\"{}\"", base64("10.0.0.1:80;a.b:80"));
    assert_eq!(read(&by_cookie, &request("cookie", &cookie), || NOW), Came::Token(token(None, None)));
    assert_eq!(read(&by_cookie, &request("cookie", "sid=?"), || NOW), Came::Malformed);
}

#[test]
fn sessions_end_and_no_client_makes_them_last_longer() {
    for (absolute, idle, text, expected) in [
        (Some(10), None, "1000005;-", Came::Token(token(Some(NOW + 5), None))),
        (Some(10), None, "1000000;-", Came::Expired),
        (Some(10), None, "9999999;-", Came::Token(token(Some(NOW + 10), None))),
        (Some(10), None, "-;-", Came::Expired),
        (None, Some(10), "-;1000001", Came::Token(token(None, Some(NOW + 1)))),
        (None, Some(10), "-;999999", Came::Expired),
        (Some(10), Some(3), "1000005;1000001", Came::Token(token(Some(NOW + 5), Some(NOW + 1)))),
        (None, None, "5;5", Came::Token(token(Some(5), Some(5)))),
    ] {
        let rules = session(header(), absolute, idle);
        let value = base64(&format!("10.0.0.1:80;a.b:80;{text}"));
        assert_eq!(read(&rules, &request("x-session", &value), || NOW), expected, "{absolute:?} {idle:?} {text}");
    }
}

#[test]
fn a_session_is_given_when_it_is_new_or_moves_or_would_fall_asleep() {
    let given = |rules: Session, token: Option<Token>| {
        let bound = Bound { rules: Arc::new(rules), token, pinned: None };
        give(&bound, address(), "a.b:80", || NOW).map(|(name, value)| (name, value.to_str().expect("text").to_owned()))
    };
    let plain = base64("10.0.0.1:80;a.b:80");
    let new = given(session(cookies("/", false), None, None), None);
    assert_eq!(new, Some((SET_COOKIE, format!("sid={plain}; Path=/; HttpOnly; SameSite=Lax"))));
    assert_eq!(given(session(cookies("/", false), None, None), Some(token(None, None))), None, "it stays");
    let elsewhere = Token { address: "10.0.0.2:80".parse().expect("literal"), ..token(None, None) };
    let (name, value) = given(session(header(), None, None), Some(elsewhere)).expect("it moves");
    assert_eq!((name.as_str(), value), ("x-session", plain));

    let lasts = || session(cookies("", true), Some(60), None);
    let value = given(lasts(), None).expect("new").1;
    let text = base64("10.0.0.1:80;a.b:80;1000060;-");
    assert_eq!(value, format!("sid={text}; Max-Age=60; HttpOnly; SameSite=Lax"));
    assert_eq!(given(lasts(), Some(token(Some(NOW + 5), None))), None);
    let both = session(cookies("", true), Some(60), Some(10));
    let value = given(both, Some(token(Some(NOW + 5), Some(NOW + 3)))).expect("it is awake").1;
    let text = base64("10.0.0.1:80;a.b:80;1000005;1000010");
    assert_eq!(value, format!("sid={text}; Max-Age=5; HttpOnly; SameSite=Lax"), "its end stays");
}

#[test]
fn only_requests_within_the_path_have_a_session() {
    for (within, path, expected) in [
        ("/", "/a", true),
        ("", "/a", true),
        ("/a", "/a", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a/", "/a/b", true),
        ("/a", "/", false),
    ] {
        assert_eq!(concerns(&session(cookies(within, false), None, None), path), expected, "{within} {path}");
    }
    assert!(concerns(&session(header(), None, None), "/"));
}

proptest! {
    #[test]
    fn whatever_is_brought_along_is_read_without_harm(value in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let _nothing = decode(&value);
        let encoded = STANDARD.encode(&value);
        let _nothing = decode(encoded.as_bytes());
    }

    #[test]
    fn what_is_given_comes_back(
        ip in any::<[u8; 16]>(),
        port in any::<u16>(),
        cluster in "[a-z0-9.:~-]{1,80}",
        ends in any::<Option<u64>>(),
        idle in any::<Option<u64>>(),
    ) {
        let token = Token { address: SocketAddr::from((ip, port)), cluster: Some(cluster), ends, idle };
        prop_assert_eq!(decode(encode(&token).as_bytes()), Some(token));
    }
}
