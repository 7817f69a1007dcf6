//! Envoy's language of access log formats (`%OPERATOR(ARGUMENT):LENGTH%`), as far as a sidecar has an answer.
//!
//! Read at start-up: what is not known refuses the start with its position, so that no line ever lacks what somebody
//! counted on.

use std::str::FromStr;

use http::HeaderName;
use pillion_wire::observe::is_sensitive;

use super::value::ValueError;

/// A format string that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
    headers: Vec<HeaderName>,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// What is put there, and how many characters of it at most.
    Value(Value, Option<usize>),
}

/// What can be put into a line. Names are Envoy's operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `START_TIME`, RFC 3339 in UTC with milliseconds.
    StartTime,
    /// `START_TIME(%s)` and `START_TIME(%s.%3f)`: Unix time in seconds, or to the millisecond.
    StartUnix {
        /// With milliseconds.
        millis: bool,
    },
    /// `REQ(:METHOD)`.
    Method,
    /// `REQ(:PATH)`, without the query: it may hold secrets.
    Path,
    /// `REQ(:AUTHORITY)`.
    Authority,
    /// `REQ(NAME?OTHER)`: the first of these request fields that is there, by their places in [`Format::headers`].
    Field(usize, Option<usize>),
    /// `PROTOCOL`.
    Protocol,
    /// `RESPONSE_CODE`.
    ResponseCode,
    /// `RESPONSE_CODE_DETAILS`: our reason code, or `via_upstream`.
    ResponseCodeDetails,
    /// `RESPONSE_FLAGS`.
    ResponseFlags,
    /// `BYTES_RECEIVED`.
    BytesReceived,
    /// `BYTES_SENT`.
    BytesSent,
    /// `DURATION`, in milliseconds.
    Duration,
    /// `RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)`, in milliseconds.
    UpstreamServiceTime,
    /// `UPSTREAM_HOST`, `UPSTREAM_REMOTE_ADDRESS`.
    UpstreamHost,
    /// `UPSTREAM_CLUSTER`.
    UpstreamCluster,
    /// `UPSTREAM_REQUEST_ATTEMPT_COUNT`.
    Attempts,
    /// `ROUTE_NAME`.
    RouteName,
    /// `DOWNSTREAM_REMOTE_ADDRESS`.
    Downstream,
    /// `DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT`.
    DownstreamIp,
    /// `REQUESTED_SERVER_NAME`.
    ServerName,
    /// `DOWNSTREAM_PEER_URI_SAN`: who called, inbound.
    DownstreamPeer,
    /// `UPSTREAM_PEER_URI_SAN`: who answered, outbound.
    UpstreamPeer,
    /// `TRACE_ID`.
    TraceId,
    /// `PILLION(direction)`.
    Direction,
    /// `PILLION(destination)`.
    Destination,
    /// `PILLION(peer)`.
    Peer,
    /// `PILLION(tls)`.
    Tls,
    /// `PILLION(reason)`.
    Reason,
    /// `PILLION(detail)`.
    Detail,
}

/// Envoy's default format ("Default Format String"), with the path as the client sent it.
const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
     %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
     \"%UPSTREAM_HOST%\"";

/// Operators without an argument.
const PLAIN: [(&str, Value); 19] = [
    ("START_TIME", Value::StartTime),
    ("PROTOCOL", Value::Protocol),
    ("RESPONSE_CODE", Value::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Value::ResponseCodeDetails),
    ("RESPONSE_FLAGS", Value::ResponseFlags),
    ("BYTES_RECEIVED", Value::BytesReceived),
    ("BYTES_SENT", Value::BytesSent),
    ("DURATION", Value::Duration),
    ("UPSTREAM_HOST", Value::UpstreamHost),
    ("UPSTREAM_REMOTE_ADDRESS", Value::UpstreamHost),
    ("UPSTREAM_CLUSTER", Value::UpstreamCluster),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Value::Attempts),
    ("ROUTE_NAME", Value::RouteName),
    ("DOWNSTREAM_REMOTE_ADDRESS", Value::Downstream),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Value::DownstreamIp),
    ("REQUESTED_SERVER_NAME", Value::ServerName),
    ("DOWNSTREAM_PEER_URI_SAN", Value::DownstreamPeer),
    ("UPSTREAM_PEER_URI_SAN", Value::UpstreamPeer),
    ("TRACE_ID", Value::TraceId),
];

/// What `PILLION(…)` may name.
const OURS: [(&str, Value); 6] = [
    ("direction", Value::Direction),
    ("destination", Value::Destination),
    ("peer", Value::Peer),
    ("tls", Value::Tls),
    ("reason", Value::Reason),
    ("detail", Value::Detail),
];

impl Format {
    /// Envoy's default.
    pub fn envoy() -> Self {
        ENVOY.parse().unwrap_or_else(|_never| Self { parts: Vec::new(), headers: Vec::new() })
    }

    /// The pieces of a line, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Fields of requests that have to be kept for it.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    fn field(&mut self, name: &str) -> Result<usize, String> {
        let lower = name.to_ascii_lowercase();
        if is_sensitive(&lower) {
            return Err(format!("the field {name} may hold secrets and is never logged"));
        }
        let name = HeaderName::try_from(lower).map_err(|_cause| format!("{name:?} is no field of a request"))?;
        Ok(self.headers.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.headers.push(name);
            self.headers.len() - 1
        }))
    }

    fn request(&mut self, argument: &str) -> Result<Value, String> {
        // Nothing sets this one here: what stands behind it is meant.
        let argument = match argument.split_once('?') {
            Some((first, other)) if first.eq_ignore_ascii_case("x-envoy-original-path") => other,
            _ => argument,
        };
        match argument.to_ascii_uppercase().as_str() {
            ":METHOD" => return Ok(Value::Method),
            ":PATH" => return Ok(Value::Path),
            ":AUTHORITY" => return Ok(Value::Authority),
            _ => {}
        }
        let (first, other) = match argument.split_once('?') {
            Some((first, other)) => (first, Some(other)),
            None => (argument, None),
        };
        Ok(Value::Field(self.field(first)?, other.map(|other| self.field(other)).transpose()?))
    }

    /// `operator`: what stands between two `%`, without a length.
    fn value(&mut self, operator: &str) -> Result<Value, String> {
        if let Some((_, value)) = PLAIN.iter().find(|(name, _)| *name == operator) {
            return Ok(value.clone());
        }
        let unknown = || format!("%{operator}% is not known here");
        let (name, argument) = operator.split_once('(').ok_or_else(unknown)?;
        let argument = argument.strip_suffix(')').ok_or_else(|| format!("%{operator}% lacks its closing bracket"))?;
        match (name, argument) {
            ("REQ", _) => self.request(argument),
            ("START_TIME", "%s") => Ok(Value::StartUnix { millis: false }),
            ("START_TIME", "%s.%3f") => Ok(Value::StartUnix { millis: true }),
            ("START_TIME", _) => Err("%START_TIME% takes no format but %s and %s.%3f".to_owned()),
            ("RESP", _) if argument.eq_ignore_ascii_case("x-envoy-upstream-service-time") => {
                Ok(Value::UpstreamServiceTime)
            }
            ("RESP", _) => Err("of responses only X-ENVOY-UPSTREAM-SERVICE-TIME is known here".to_owned()),
            ("PILLION", _) => {
                let found = OURS.iter().find(|(ours, _)| *ours == argument);
                found.map(|(_, value)| value.clone()).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

/// How long what stands between two `%` is: in brackets a `%` ends nothing.
fn end_of(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    rest.char_indices().find_map(|(at, letter)| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(at),
            _ => {}
        }
        None
    })
}

/// `OPERATOR:LENGTH`, of which the length may be missing. A colon in brackets belongs to a name.
fn length(inside: &str) -> Result<(&str, Option<usize>), String> {
    let from = inside.rfind(')').unwrap_or(0);
    let colon = inside.get(from..).and_then(|tail| tail.find(':')).map(|at| from + at);
    let Some((operator, digits)) = colon.and_then(|at| Some((inside.get(..at)?, inside.get(at + 1..)?))) else {
        return Ok((inside, None));
    };
    let length = digits.parse().map_err(|_cause| format!("{digits:?} is no length"))?;
    Ok((operator, Some(length)))
}

impl FromStr for Format {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut format = Self { parts: Vec::new(), headers: Vec::new() };
        let text = text.trim_end_matches('\n');
        let mut rest = text;
        while let Some(percent) = rest.find('%') {
            let (before, after) = rest.split_at(percent);
            format.text(before);
            let position = text.len() - after.len();
            let wrong = |problem| ValueError::LogFormat { position, problem };
            let after = after.get(1..).unwrap_or_default();
            if let Some(literal) = after.strip_prefix('%') {
                format.text("%");
                rest = literal;
                continue;
            }
            let end = end_of(after).ok_or_else(|| wrong("an operator begins here and has no end".to_owned()))?;
            let (operator, most) = length(after.get(..end).unwrap_or_default()).map_err(wrong)?;
            let value = format.value(operator).map_err(wrong)?;
            format.parts.push(Part::Value(value, most));
            rest = after.get(end + 1..).unwrap_or_default();
        }
        format.text(rest);
        Ok(format)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Format>().unwrap_err().to_string()
    }

    #[test]
    fn envoys_default_is_read_whole() {
        let format: Format = ENVOY.parse().expect("Envoy's own");
        assert_eq!(format, Format::envoy());
        let values = format.parts().iter().filter(|part| matches!(part, Part::Value(..))).count();
        assert_eq!(values, 15);
        let headers: Vec<&str> = format.headers().iter().map(HeaderName::as_str).collect();
        assert_eq!(headers, ["x-forwarded-for", "user-agent", "x-request-id"]);
    }

    #[test]
    fn lengths_literals_and_alternatives() {
        let format: Format = "a%%b %REQ(X-A?X-B):5% %REQ(:PATH):3%|%START_TIME(%s.%3f)%\n".parse().expect("valid");
        assert_eq!(
            format.parts(),
            [
                Part::Text("a%b ".to_owned()),
                Part::Value(Value::Field(0, Some(1)), Some(5)),
                Part::Text(" ".to_owned()),
                Part::Value(Value::Path, Some(3)),
                Part::Text("|".to_owned()),
                Part::Value(Value::StartUnix { millis: true }, None),
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_position() {
        for (text, wanted) in [
            ("%PROTOCOL% %NOPE%", "at 11: %NOPE% is not known"),
            ("ab %PROTOCOL", "at 3: an operator begins here and has no end"),
            ("%REQ(Authorization)%", "at 0: the field Authorization may hold secrets"),
            ("%REQ(X-API-KEY)%", "the field X-API-KEY may hold secrets"),
            ("%REQ(USER-AGENT?X-AUTH-TOKEN)%", "the field X-AUTH-TOKEN may hold secrets"),
            ("%REQ(x y)%", "is no field of a request"),
            ("%REQ(COOKIE?USER-AGENT)%", "may hold secrets"),
            ("%RESP(X-ANY)%\n", "at 0: of responses only"),
            ("%REQ(X-A):many%", "\"many\" is no length"),
            ("%PILLION(nothing)%", "is not known"),
            ("x %START_TIME(%Y)%", "at 2: %START_TIME%"),
        ] {
            assert!(refusal(text).contains(wanted), "{text}: {}", refusal(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[%A-Z():?a-z0-9 é]{0,40}") {
            let _read_or_refused = text.parse::<Format>();
        }
    }
}
