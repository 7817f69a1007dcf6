//! Which requests become spans of a trace, and who begins one.

use std::str::FromStr;
use std::time::Duration;

use super::BootstrapError;
use super::settings::Settings;
use super::value::{OnOff, Span, ValueError};

/// What is done with traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Is anything done with their fields?
    pub headers: TraceHeaders,
    /// Traces without a decision: of a million so many are sampled.
    pub per_million: u32,
    /// Requests that take this long until their answer begins are kept all the same. `None`: none are for that.
    pub slow: Option<Duration>,
    /// Requests that fail are kept all the same.
    pub errors: bool,
}

/// What is done with fields of traces (`traceparent`, `b3` and their like).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceHeaders {
    /// A trace is begun where there is none, if spans go to a collector. Malformed fields do not go on.
    #[default]
    Auto,
    /// A trace is begun where there is none, also without a collector.
    On,
    /// They are other people's business: nothing is looked at, no spans are made.
    Off,
}

/// A share: `1%`, `0.1%`, `100%`; so many of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Percent(u32);

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaybeSpan(Option<Duration>);

impl FromStr for TraceHeaders {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ValueError::TraceHeaders(text.to_owned())),
        }
    }
}

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        // In range, as has just been seen.
        number
            .map(|number| Self((number * 10_000.0).round() as u32))
            .ok_or_else(|| ValueError::Percent(text.to_owned()))
    }
}

impl FromStr for MaybeSpan {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self(None)) } else { text.parse::<Span>().map(|span| Self(Some(span.into()))) }
    }
}

/// 1 % as in Istio; a second is slow; errors are always worth seeing.
pub(super) fn build(settings: &Settings) -> Result<Tracing, BootstrapError> {
    let slow = settings.trace_slow.map_or(Some(Duration::from_secs(1)), |MaybeSpan(slow)| slow);
    if slow.is_some_and(|slow| slow.is_zero()) {
        return Err(BootstrapError::Range { name: "trace-slow", problem: "must be longer than 0, or off" });
    }
    Ok(Tracing {
        headers: settings.trace_headers.unwrap_or_default(),
        per_million: settings.trace_sampling.map_or(10_000, |Percent(share)| share),
        slow,
        errors: settings.trace_errors.is_none_or(OnOff::is_on),
    })
}
