//! What a request says of the trace that it belongs to. One pass over its fields, and nothing is copied.

use http::HeaderMap;
use opentelemetry::{SpanId, TraceId};

use super::context::{B3Facts, B3Form, Unwanted};
use super::{baggage, tracestate};

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Which trace, and which span of it called; `None`: nothing that could be understood.
    pub(super) ids: Option<(TraceId, SpanId)>,
    /// Was it decided whether its spans are kept? B3 may leave it open, and may say it without ids.
    pub(super) sampled: Option<bool>,
    /// The trace id is random (W3C level 2).
    pub(super) random: bool,
    pub(super) b3: B3Form,
    pub(super) unwanted: Unwanted,
}

/// Fields as they were found.
#[derive(Default)]
struct Found<'a> {
    traceparent: Option<&'a [u8]>,
    b3: Option<&'a [u8]>,
    trace_id: Option<&'a [u8]>,
    span_id: Option<&'a [u8]>,
    parent: Option<&'a [u8]>,
    sampled: Option<&'a [u8]>,
    flags: Option<&'a [u8]>,
    has_tracestate: bool,
    has_baggage: bool,
    /// One is there several times that must not be.
    twice: Unwanted,
    any: bool,
}

impl Received {
    /// Reads the fields of a request.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let found = Found::look(headers);
        if found.any { Self::of(&found, headers) } else { Self::default() }
    }

    fn of(found: &Found<'_>, headers: &HeaderMap) -> Self {
        let mut received = Self::default();
        let twice = found.twice;
        let w3c = found.traceparent.filter(|_| !twice.has(Unwanted::TRACEPARENT)).and_then(traceparent);
        if found.traceparent.is_some() && w3c.is_none() {
            received.unwanted.add(Unwanted::TRACEPARENT);
        }
        // Without its parent it belongs to nothing (Trace Context, 3.3).
        if found.has_tracestate && (w3c.is_none() || !tracestate::is_valid(headers)) {
            received.unwanted.add(Unwanted::TRACESTATE);
        }
        if found.has_baggage && !baggage::is_valid(headers) {
            received.unwanted.add(Unwanted::BAGGAGE);
        }
        let single = found.b3.filter(|_| !twice.has(Unwanted::B3)).and_then(single);
        let multi = if twice.has(Unwanted::B3_MULTI) { None } else { found.multi() };
        if found.b3.is_some() && single.is_none() {
            received.unwanted.add(Unwanted::B3);
        }
        if found.has_multi() && multi.is_none() {
            received.unwanted.add(Unwanted::B3_MULTI);
        }
        // Told twice, it goes on in the shorter form.
        if single.is_some() && multi.is_some() {
            received.unwanted.add(Unwanted::B3_MULTI);
        }
        let b3 = single.or(multi);
        received.b3 = match (single, multi) {
            (Some(told), _) => B3Form::Single(told.facts),
            (None, Some(told)) => B3Form::Multi(told.facts),
            (None, None) => B3Form::None,
        };
        match (w3c, b3) {
            (Some((ids, flags)), _) => {
                received.ids = Some(ids);
                received.sampled = Some(flags & 1 != 0);
                received.random = flags & 2 != 0;
            }
            (None, Some(told)) => {
                received.ids = told.ids;
                received.sampled = told.sampled;
            }
            (None, None) => {}
        }
        received
    }
}

impl<'a> Found<'a> {
    fn look(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            if !matches!(name.as_bytes().first(), Some(b't' | b'b' | b'x')) {
                continue;
            }
            let (place, bit) = match name {
                "traceparent" => (&mut found.traceparent, Unwanted::TRACEPARENT),
                "b3" => (&mut found.b3, Unwanted::B3),
                "x-b3-traceid" => (&mut found.trace_id, Unwanted::B3_MULTI),
                "x-b3-spanid" => (&mut found.span_id, Unwanted::B3_MULTI),
                "x-b3-parentspanid" => (&mut found.parent, Unwanted::B3_MULTI),
                "x-b3-sampled" => (&mut found.sampled, Unwanted::B3_MULTI),
                "x-b3-flags" => (&mut found.flags, Unwanted::B3_MULTI),
                "tracestate" => {
                    (found.has_tracestate, found.any) = (true, true);
                    continue;
                }
                "baggage" => {
                    (found.has_baggage, found.any) = (true, true);
                    continue;
                }
                _ => continue,
            };
            if place.replace(value.as_bytes()).is_some() {
                found.twice.add(bit);
            }
            found.any = true;
        }
        found
    }

    fn has_multi(&self) -> bool {
        [self.trace_id, self.span_id, self.parent, self.sampled, self.flags].iter().any(Option::is_some)
    }

    fn multi(&self) -> Option<ToldByB3> {
        let debug = self.flags == Some(b"1");
        let sampled = match self.sampled {
            None => None,
            Some(b"1" | b"true") => Some(true),
            Some(b"0" | b"false") => Some(false),
            Some(_) => return None,
        };
        let ids = match (self.trace_id, self.span_id) {
            (None, None) => None,
            (Some(trace), Some(span)) => Some((trace_id(trace)?, span_id(span)?)),
            _ => return None,
        };
        if self.parent.is_some_and(|parent| span_id(parent).is_none()) {
            return None;
        }
        let short = self.trace_id.is_some_and(|id| id.len() == 16);
        let sampled = if debug { Some(true) } else { sampled };
        self.has_multi().then_some(ToldByB3 { ids, sampled, facts: B3Facts { short, debug } })
    }
}

/// What B3 says, in either form.
#[derive(Clone, Copy)]
struct ToldByB3 {
    ids: Option<(TraceId, SpanId)>,
    sampled: Option<bool>,
    facts: B3Facts,
}

/// `00-TRACE-SPAN-FLAGS`; later versions may say more behind that (Trace Context, 3.2 and 4.3).
fn traceparent(text: &[u8]) -> Option<((TraceId, SpanId), u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let &[a, b, b'-', ref ids @ .., c, d] = head else { return None };
    let version = byte(a, b)?;
    let fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest.first(), None | Some(b'-')),
    };
    let (trace, span) = (ids.get(..32)?, ids.get(33..49)?);
    if !fits || ids.get(32) != Some(&b'-') || ids.get(49) != Some(&b'-') || ids.len() != 50 {
        return None;
    }
    let (trace, span) = (number(trace, nibble)?, number(span, nibble)?);
    if trace == 0 || span == 0 {
        return None;
    }
    let ids = (TraceId::from(trace), SpanId::from(u64::try_from(span).ok()?));
    Some((ids, byte(c, d)?))
}

/// `TRACE-SPAN`, `TRACE-SPAN-STATE`, `TRACE-SPAN-STATE-PARENT`, or `STATE`.
fn single(text: &[u8]) -> Option<ToldByB3> {
    let state = |text: &[u8]| match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    };
    if let Some((sampled, debug)) = state(text) {
        return Some(ToldByB3 { ids: None, sampled: Some(sampled), facts: B3Facts { short: false, debug } });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let ids = Some((trace_id(trace)?, span_id(span)?));
    let state = match parts.next() {
        Some(text) => Some(state(text)?),
        None => None,
    };
    if parts.next().is_some_and(|parent| span_id(parent).is_none()) || parts.next().is_some() {
        return None;
    }
    let facts = B3Facts { short: trace.len() == 16, debug: state.is_some_and(|(_, debug)| debug) };
    Some(ToldByB3 { ids, sampled: state.map(|(sampled, _)| sampled), facts })
}

/// 128 or 64 bits.
fn trace_id(text: &[u8]) -> Option<TraceId> {
    let number = number(text, any_nibble).filter(|number| *number != 0)?;
    matches!(text.len(), 16 | 32).then(|| TraceId::from(number))
}

fn span_id(text: &[u8]) -> Option<SpanId> {
    let number = number(text, any_nibble).filter(|number| *number != 0 && text.len() == 16)?;
    u64::try_from(number).ok().map(SpanId::from)
}

fn byte(high: u8, low: u8) -> Option<u8> {
    Some(nibble(high)? << 4 | nibble(low)?)
}

/// At most 32 digits.
fn number(text: &[u8], nibble: fn(u8) -> Option<u8>) -> Option<u128> {
    if text.len() > 32 {
        return None;
    }
    text.iter().try_fold(0, |number: u128, digit| Some(number << 4 | u128::from(nibble(*digit)?)))
}

/// W3C knows lower case only.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn any_nibble(digit: u8) -> Option<u8> {
    nibble(digit.to_ascii_lowercase())
}
