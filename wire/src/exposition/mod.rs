//! Metrics as Prometheus reads them: families of points, in either of two texts.
//!
//! | format | asked for by | |
//! |---|---|---|
//! | Prometheus text 0.0.4 | anybody | no exemplars; a counter's family is called as its sample |
//! | OpenMetrics 1.0 | `Accept: application/openmetrics-text` | exemplars, and `# EOF` at the end |

mod parse;
mod render;

pub use parse::parse;
pub use render::render;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

/// Metrics of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Without `_total`, `_bucket` and the like.
    pub name: Cow<'static, str>,
    /// One sentence.
    pub help: Cow<'static, str>,
    /// What its points are.
    pub kind: Kind,
    /// Each with other labels.
    pub points: Vec<Point>,
}

/// What points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One time series (of a histogram: several).
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Names and values.
    pub labels: Labels,
    /// What it says.
    pub value: Value,
}

/// Labels in the order in which they are shown.
pub type Labels = Vec<(Cow<'static, str>, Text)>;

/// What a point says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

/// Counts by size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds of the buckets, ascending; the last bucket has none.
    pub bounds: Cow<'static, [f64]>,
    /// How many are in each bucket, one more than there are bounds. Not cumulative.
    pub counts: Vec<u64>,
    /// Sum of all.
    pub sum: f64,
    /// An example of each bucket; empty when there are none at all.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Histogram {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another one with the same bounds has counted; of two examples the later stays.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        if self.exemplars.is_empty() {
            self.exemplars.clone_from(&other.exemplars);
            return;
        }
        for (mine, theirs) in self.exemplars.iter_mut().zip(&other.exemplars) {
            if theirs.as_ref().map(|exemplar| exemplar.at) > mine.as_ref().map(|exemplar| exemplar.at) {
                mine.clone_from(theirs);
            }
        }
    }
}

/// A request that is an example of its bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its trace (W3C Trace Context, `trace-id`).
    pub trace_id: [u8; 16],
    /// Its value.
    pub value: f64,
    /// When it ended.
    pub at: SystemTime,
}

/// A label's value, wherever it lies.
#[derive(Clone, Debug)]
pub enum Text {
    /// In the program.
    Static(&'static str),
    /// With others.
    Shared(Arc<str>),
    /// Here.
    Owned(Box<str>),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::Shared(Arc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Owned(text.into())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// How a page of metrics is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a request's `Accept` prefers of the two (RFC 9110, section 12.5.1); Prometheus text when it does not say.
    pub fn accepted(accept: Option<&str>) -> Self {
        let mut best = [0.0_f64; 2];
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let quality: f64 = quality.unwrap_or(0.0);
            let [text, open] = &mut best;
            if kind.eq_ignore_ascii_case("application/openmetrics-text") {
                *open = open.max(quality);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                *text = text.max(quality);
            }
        }
        let [text, open] = best;
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` of such a page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_openmetrics_and_others_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let cases = [
            (Some(prometheus), Format::OpenMetrics),
            (Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics),
            (Some("text/plain, application/openmetrics-text;q=0.5"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("application/openmetrics-text;q=x"), Format::Text),
            (Some("*/*"), Format::Text),
            (None, Format::Text),
        ];
        for (accept, wanted) in cases {
            assert_eq!(Format::accepted(accept), wanted, "{accept:?}");
        }
    }
}
