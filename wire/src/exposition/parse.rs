//! OpenMetrics text as families, as far as our own programs write it.

use std::borrow::Cow;

use super::{Family, Histogram, Kind, Labels, Point, Text, Value};

/// Reads a page. What is not understood is left out; exemplars are.
pub fn parse(page: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in page.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (Some(what), Some(name), text) = (words.next(), words.next(), words.next()) else { continue };
            let Some(family) = family(&mut families, what, name) else { continue };
            match (what, text) {
                ("TYPE", Some("counter")) => family.kind = Kind::Counter,
                ("TYPE", Some("histogram")) => family.kind = Kind::Histogram,
                ("HELP", Some(text)) => family.help = Cow::Owned(unescape(text)),
                _ => {}
            }
        } else if let (Some(family), Some((name, labels, value))) = (families.last_mut(), sample(line)) {
            let Some(suffix) = name.strip_prefix(&*family.name) else { continue };
            match family.kind {
                Kind::Histogram => bucket(family, suffix, labels, value),
                Kind::Counter if suffix != "_total" => {} // When it began.
                Kind::Counter | Kind::Gauge => family.points.push(Point { labels, value: Value::Number(value) }),
            }
        }
    }
    families
}

/// The family that a comment is about.
fn family<'a>(families: &'a mut Vec<Family>, what: &str, name: &str) -> Option<&'a mut Family> {
    if !matches!(what, "TYPE" | "HELP") {
        return None;
    }
    if families.last().is_none_or(|last| last.name != name) {
        families.push(Family {
            name: Cow::Owned(name.to_owned()),
            help: Cow::Borrowed(""),
            kind: Kind::Gauge,
            points: Vec::new(),
        });
    }
    families.last_mut()
}

/// One line of a histogram, whose lines are all together.
fn bucket(family: &mut Family, suffix: &str, mut labels: Labels, value: f64) {
    let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
    if family.points.last().is_none_or(|last| last.labels != labels) {
        let value = Value::Histogram(Histogram::default());
        family.points.push(Point { labels, value });
    }
    let Some(Point { value: Value::Histogram(histogram), .. }) = family.points.last_mut() else { return };
    match (suffix, bound) {
        ("_sum", _) => histogram.sum = value,
        ("_bucket", Some(bound)) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is a whole number")]
            let below = value as u64;
            let before: u64 = histogram.counts.iter().sum();
            histogram.counts.push(below.saturating_sub(before));
            if let Ok(bound) = bound.parse::<f64>()
                && bound.is_finite()
            {
                histogram.bounds.to_mut().push(bound);
            }
        }
        _ => {}
    }
}

/// `name{labels} value`, and perhaps more.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            let (value, after) = after.split_at_checked(end)?;
            labels.push((Cow::Owned(label.to_owned()), Text::from(unescape(value))));
            rest = after.strip_prefix('"')?;
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let is_end = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        is_end.then_some(at)
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (other, false) => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Format, render};
    use super::*;

    fn families() -> impl Strategy<Value = Vec<Family>> {
        let labels = prop::collection::btree_map("[a-d]", "\\PC{0,8}|[\\\\\"\n{},= ]{0,4}", 0..3);
        let labels = labels
            .prop_map(|labels| labels.into_iter().map(|(name, value)| (Cow::Owned(name), Text::from(value))).collect());
        let histogram = prop::collection::vec(0_u64..1000, 3).prop_map(|counts| {
            Value::Histogram(Histogram { bounds: vec![0.5, 1.0].into(), counts, sum: 1.5, exemplars: Vec::new() })
        });
        let number = (0_u32..1_000_000).prop_map(|number| Value::Number(f64::from(number)));
        let kind = prop_oneof![Just(Kind::Counter), Just(Kind::Gauge), Just(Kind::Histogram)];
        let family = (kind, "\\PC{0,8}", prop::collection::vec((labels, histogram, number), 1..4)).prop_map(
            |(kind, help, points)| {
                let mut points: Vec<Point> = points
                    .into_iter()
                    .map(|(labels, histogram, number)| Point {
                        labels,
                        value: if kind == Kind::Histogram { histogram } else { number },
                    })
                    .collect();
                points.sort_by(|a, b| a.labels.cmp(&b.labels));
                points.dedup_by(|a, b| a.labels == b.labels);
                (kind, format!("x{help}"), points)
            },
        );
        prop::collection::vec(family, 0..4).prop_map(|families| {
            let named = families.into_iter().enumerate();
            named
                .map(|(at, (kind, help, points))| Family {
                    name: format!("family_{at}").into(),
                    help: help.into(),
                    kind,
                    points,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(families in families()) {
            prop_assert_eq!(parse(&render(&families, Format::OpenMetrics)), families);
        }

        #[test]
        fn nothing_panics(page in "(# (TYPE|HELP) a(_b)? (counter|histogram|x)\n|a(_bucket|_total|_sum)?(\\{[a-z,=\"\\\\]{0,9}\\})? ?[0-9.+Inf-]{0,4}\n|\\PC{0,9}\n){0,9}") {
            parse(&page);
        }
    }

    #[test]
    fn a_counter_s_family_is_called_as_its_sample_in_the_older_text() {
        let page = "# HELP a_requests Of \"all\".\n# TYPE a_requests counter\na_requests_total{x=\"y\"} 3 # {t=\"u\"} 1\n# EOF\n";
        let text = render(&parse(page), Format::Text);
        assert_eq!(
            text,
            "# HELP a_requests_total Of \"all\".\n# TYPE a_requests_total counter\na_requests_total{x=\"y\"} 3\n"
        );
    }
}
