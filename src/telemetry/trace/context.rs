//! Where a request stands in its trace, and how that is written (W3C Trace Context level 2; B3).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{SpanId, TraceId};

/// W3C's field.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others add to it.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What applications pass along (W3C Baggage).
pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// B3 in one field.
pub(super) const B3: HeaderName = HeaderName::from_static("b3");
/// B3 in several.
pub(super) const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
/// See [`B3_TRACE_ID`].
pub(super) const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
/// See [`B3_TRACE_ID`].
pub(super) const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
/// See [`B3_TRACE_ID`].
pub(super) const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
/// See [`B3_TRACE_ID`].
pub(super) const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Of the whole trace; never zero.
    pub trace_id: TraceId,
    /// Of our hop; never zero.
    pub span_id: SpanId,
    /// Of whoever called; zero where the trace begins with us.
    pub parent: SpanId,
    /// Will its spans be kept, as far as is known at its beginning?
    pub sampled: bool,
    /// Is the trace id random enough to sample by?
    pub(super) random: bool,
    /// The form of B3 in which it came, too.
    pub(super) b3: B3Form,
    /// Is what goes on written anew?
    pub(super) is_ours: bool,
}

/// How B3 came, and goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum B3Form {
    #[default]
    None,
    Single(B3Facts),
    Multi(B3Facts),
}

/// What B3 says beyond what W3C can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct B3Facts {
    /// Its trace id has 64 bits.
    pub(super) short: bool,
    /// Asks for more than being sampled.
    pub(super) debug: bool,
}

/// Fields that came and must not go on, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::telemetry) struct Unwanted(u8);

impl Unwanted {
    pub(super) const TRACEPARENT: Self = Self(1);
    pub(super) const TRACESTATE: Self = Self(2);
    pub(super) const BAGGAGE: Self = Self(4);
    pub(super) const B3: Self = Self(8);
    pub(super) const B3_MULTI: Self = Self(16);

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Takes them out; mostly there are none.
    pub(super) fn remove(self, headers: &mut HeaderMap) {
        if self == Self::default() {
            return;
        }
        let single = [
            (Self::TRACEPARENT, TRACEPARENT),
            (Self::TRACESTATE, TRACESTATE),
            (Self::BAGGAGE, BAGGAGE),
            (Self::B3, B3),
        ];
        for (bit, name) in single {
            if self.has(bit) {
                headers.remove(name);
            }
        }
        if self.has(Self::B3_MULTI) {
            for name in [B3_TRACE_ID, B3_SPAN_ID, B3_PARENT, B3_SAMPLED, B3_FLAGS] {
                headers.remove(name);
            }
        }
    }
}

/// The context as the next hop is to see it: with this span as its parent.
#[derive(Clone, Copy, Debug)]
pub struct Onward {
    pub(super) context: Context,
    pub(super) span_id: SpanId,
}

impl Onward {
    /// Writes it: W3C always, B3 in the form in which it came.
    pub fn write(&self, headers: &mut HeaderMap) {
        let Context { trace_id, sampled, random, parent, b3, .. } = self.context;
        let mut text = [b'-'; 55];
        hex(&[0], &mut text, 0);
        hex(&trace_id.to_bytes(), &mut text, 3);
        hex(&self.span_id.to_bytes(), &mut text, 36);
        hex(&[u8::from(sampled) | u8::from(random) << 1], &mut text, 53);
        insert(headers, TRACEPARENT, &text);
        match b3 {
            B3Form::None => {}
            B3Form::Single(facts) => self.write_single(headers, facts),
            B3Form::Multi(facts) => {
                let (mut ids, mut span, mut above) = ([0; 32], [0; 16], [0; 16]);
                hex(&trace_id.to_bytes(), &mut ids, 0);
                hex(&self.span_id.to_bytes(), &mut span, 0);
                insert(headers, B3_TRACE_ID, ids.get(if facts.short { 16 } else { 0 }..).unwrap_or_default());
                insert(headers, B3_SPAN_ID, &span);
                if parent == SpanId::INVALID {
                    headers.remove(B3_PARENT);
                } else {
                    hex(&parent.to_bytes(), &mut above, 0);
                    insert(headers, B3_PARENT, &above);
                }
                // The flag of debugging says it already, and stays.
                if !facts.debug {
                    headers.insert(B3_SAMPLED, HeaderValue::from_static(if sampled { "1" } else { "0" }));
                }
            }
        }
    }

    fn write_single(&self, headers: &mut HeaderMap, facts: B3Facts) {
        let Context { trace_id, sampled, parent, .. } = self.context;
        let mut text = [b'-'; 68];
        hex(&trace_id.to_bytes(), &mut text, 0);
        hex(&self.span_id.to_bytes(), &mut text, 33);
        if let Some(state) = text.get_mut(50) {
            *state = match (facts.debug, sampled) {
                (true, _) => b'd',
                (false, true) => b'1',
                (false, false) => b'0',
            };
        }
        let end = if parent == SpanId::INVALID {
            51
        } else {
            hex(&parent.to_bytes(), &mut text, 52);
            68
        };
        insert(headers, B3, text.get(if facts.short { 16 } else { 0 }..end).unwrap_or_default());
    }
}

/// Of values that differ in each request, HPACK keeps no copies.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    if let Ok(mut value) = HeaderValue::from_bytes(text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Writes `bytes` as lower-case hexadecimal digits, from `at` on.
fn hex(bytes: &[u8], text: &mut [u8], at: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let places = text.get_mut(at..).unwrap_or_default().chunks_exact_mut(2);
    for (byte, place) in bytes.iter().zip(places) {
        for (digit, nibble) in place.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
        }
    }
}
