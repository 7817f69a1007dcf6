//! Reads what a sidecar's `/metrics` page says: the Prometheus text format, as far as the mesh's own programs write it.
//!
//! Counters only ever grow, so whoever wants a rate takes two readings and the [`Samples::since`] of them. A line that
//! is not understood is left out: a reader of numbers must not fail on a metric that it does not know.

use std::collections::BTreeMap;

/// One reading of a metrics page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    samples: Vec<Sample>,
}

/// One line: a name, its labels, its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, `_total` or `_bucket` included.
    pub name: String,
    /// Labels in alphabetical order.
    pub labels: BTreeMap<String, String>,
    /// The value at the time of the reading.
    pub value: f64,
}

impl Sample {
    /// The value of a label, or "" where the line does not have it.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn matches(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(key, value)| self.label(key) == *value)
    }
}

impl Samples {
    /// Parses a page; lines that are comments or not understood are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(parse_line).collect() }
    }

    /// All samples of one metric whose labels include the given ones.
    pub fn select<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.matches(name, labels))
    }

    /// The sum over all samples of one metric whose labels include the given ones; 0 where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// What was added since an earlier reading of the same page. A value that shrank (its process was started again)
    /// counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let key = |sample: &Sample| (sample.name.clone(), sample.labels.clone());
        let before: BTreeMap<_, _> = earlier.samples.iter().map(|sample| (key(sample), sample.value)).collect();
        let grown = |sample: &Sample| {
            let start = before.get(&key(sample)).copied().unwrap_or(0.0);
            let value = if sample.value < start { sample.value } else { sample.value - start };
            Sample { value, ..sample.clone() }
        };
        Self { samples: self.samples.iter().map(grown).collect() }
    }

    /// The readings of several processes, to be summed as one.
    #[must_use]
    pub fn join(readings: impl IntoIterator<Item = Self>) -> Self {
        Self { samples: readings.into_iter().flat_map(|reading| reading.samples).collect() }
    }

    /// A quantile (`0.5`, `0.99`) of a histogram, in the histogram's unit: linear between the bucket's bounds, as
    /// Prometheus' `histogram_quantile` does it. `None` where nothing was observed.
    #[must_use]
    pub fn quantile(&self, histogram: &str, labels: &[(&str, &str)], quantile: f64) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.select(&name, labels) {
            let bound = parse_value(sample.label("le"))?;
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        within(&buckets, quantile)
    }
}

/// The quantile within cumulative buckets (upper bound, count), sorted by bound.
fn within(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = quantile * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > below {
            if bound.is_infinite() {
                return Some(lower);
            }
            return Some(lower + (bound - lower) * ((rank - below) / (count - below)).clamp(0.0, 1.0));
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower)
}

fn parse_line(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(name_end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => parse_labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let value = parse_value(rest.split_whitespace().next()?)?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn parse_labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, after) = text.split_once("=\"")?;
        let (value, rest) = parse_quoted(after)?;
        labels.insert(key.to_owned(), value);
        text = rest;
    }
}

/// A label's value up to its closing quote, with `\\`, `\"` and `\n` undone, and what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

fn parse_value(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        other => other.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP pillion_requests Requests.
# TYPE pillion_requests counter
pillion_requests_total{direction=\"outbound\",cluster=\"a.shop:80\",status=\"200\"} 90
pillion_requests_total{direction=\"outbound\",cluster=\"b.shop:80\",status=\"200\"} 10
pillion_requests_total{direction=\"inbound\",cluster=\"quoted \\\"}\\\\\",status=\"503\"} 1 1700000000
up 1
broken{ 3
pillion_seconds_bucket{le=\"0.1\"} 50
pillion_seconds_bucket{le=\"0.2\"} 100
pillion_seconds_bucket{le=\"+Inf\"} 100
# EOF
";

    #[test]
    fn sums_select_by_labels() {
        let page = Samples::parse(PAGE);
        assert_eq!(page.sum("pillion_requests_total", &[("direction", "outbound")]), 100.0);
        assert_eq!(page.sum("pillion_requests_total", &[("cluster", "b.shop:80")]), 10.0);
        assert_eq!(page.sum("pillion_requests_total", &[("cluster", "quoted \"}\\")]), 1.0);
        assert_eq!(page.sum("up", &[]), 1.0);
        assert_eq!(page.sum("absent", &[]), 0.0);
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let page = Samples::parse(PAGE);
        assert_eq!(page.quantile("pillion_seconds", &[], 0.5), Some(0.1));
        assert_eq!(page.quantile("pillion_seconds", &[], 0.75), Some(0.15000000000000002));
        assert_eq!(page.quantile("absent", &[], 0.5), None);
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_the_last_bound() {
        let page = Samples::parse("s_bucket{le=\"1\"} 1\ns_bucket{le=\"+Inf\"} 10\n");
        assert_eq!(page.quantile("s", &[], 0.99), Some(1.0));
    }

    #[test]
    fn the_difference_survives_a_restart() {
        let earlier = Samples::parse("a 5\nb 5\n");
        let later = Samples::parse("a 7\nb 2\nc 1\n").since(&earlier);
        assert_eq!((later.sum("a", &[]), later.sum("b", &[]), later.sum("c", &[])), (2.0, 2.0, 1.0));
    }

    #[test]
    fn joined_readings_add_up() {
        let both = Samples::join([Samples::parse("a 1\n"), Samples::parse("a 2\n")]);
        assert_eq!(both.sum("a", &[]), 3.0);
    }
}
