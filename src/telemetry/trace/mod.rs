//! Traces: where a request stands in one, whether its spans are kept, and what they say.
//!
//! ```text
//! receive    fields of a request -> Context (W3C, B3), or one that begins here
//! record     the steps of a request, as its Record notes them; fields of what goes on
//! story      what is noted: attempts, events
//! sampling   kept from the beginning: what was decided before, else a share of trace ids
//! tracer     kept late: errors, slow requests, and what belongs to the same trace as one
//! ring       requests that are not kept yet, for as long as they may be
//! spans      SERVER and CLIENT spans of a kept request, made where they are sent, not where requests are served
//! ```
//!
//! *Without a collector* a sidecar takes no part in a trace: what came well-formed goes on as it is, since a span of ours
//! that nobody will ever see must not stand between those of applications. What is malformed does not go on. With
//! `--trace-headers on` a trace id is started nevertheless where there is none.

mod baggage;
mod context;
mod marks;
mod receive;
mod record;
mod ring;
mod sampling;
mod spans;
mod story;
#[cfg(test)]
mod tests;
mod tracer;
mod tracestate;

pub use context::{Context, Onward};
pub use sampling::{Sampling, Share};
pub use story::Finished;
pub use tracer::{QUEUE, SpanCounts, Tracer};

pub(super) use context::Unwanted;
pub(super) use ring::Ring;
pub(super) use spans::{host_and_port, known_method};
pub(super) use story::Story;

use http::HeaderMap;
use opentelemetry::TraceId;

/// The trace id of a request with these fields, if it has a well-formed one.
pub fn id(headers: &HeaderMap) -> Option<TraceId> {
    receive::Received::read(headers).ids.map(|(trace, _)| trace)
}
