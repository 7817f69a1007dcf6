//! Families as text.

use std::fmt::{self, Write};
use std::time::SystemTime;

use super::{Exemplar, Family, Format, Histogram, Kind, Point, Value};

/// The whole page. Families without points are named, so that readers know what there may be.
pub fn render(families: &[Family], format: Format) -> String {
    let mut page = String::new();
    for family in families {
        // Writing to a String cannot fail.
        let _infallible = write_family(&mut page, family, format);
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

fn write_family(page: &mut String, family: &Family, format: Format) -> fmt::Result {
    let total = if family.kind == Kind::Counter { "_total" } else { "" };
    let (name, kind) = (&family.name, kind(family.kind));
    let of_family = if format == Format::Text { total } else { "" };
    write!(page, "# HELP {name}{of_family} ")?;
    escape(page, &family.help, format == Format::OpenMetrics);
    writeln!(page, "\n# TYPE {name}{of_family} {kind}")?;
    for point in &family.points {
        match &point.value {
            Value::Number(number) => {
                write!(page, "{name}{total}")?;
                write_labels(page, point, None)?;
                writeln!(page, " {number}")?;
            }
            Value::Histogram(histogram) => write_histogram(page, name, point, histogram, format)?,
        }
    }
    Ok(())
}

fn write_histogram(page: &mut String, name: &str, point: &Point, histogram: &Histogram, format: Format) -> fmt::Result {
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    let mut below = 0;
    for (at, (bound, count)) in bounds.zip(&histogram.counts).enumerate() {
        below += count;
        write!(page, "{name}_bucket")?;
        write_labels(page, point, Some(bound))?;
        write!(page, " {below}")?;
        if let Some(Some(exemplar)) = histogram.exemplars.get(at).filter(|_| format == Format::OpenMetrics) {
            write_exemplar(page, exemplar)?;
        }
        page.push('\n');
    }
    write!(page, "{name}_sum")?;
    write_labels(page, point, None)?;
    write!(page, " {}\n{name}_count", histogram.sum)?;
    write_labels(page, point, None)?;
    writeln!(page, " {below}")
}

fn write_labels(page: &mut String, point: &Point, bound: Option<f64>) -> fmt::Result {
    if point.labels.is_empty() && bound.is_none() {
        return Ok(());
    }
    page.push('{');
    for (at, (name, value)) in point.labels.iter().enumerate() {
        write!(page, "{}{name}=\"", if at == 0 { "" } else { "," })?;
        escape(page, value, true);
        page.push('"');
    }
    if let Some(bound) = bound {
        page.push_str(if point.labels.is_empty() { "le=\"" } else { ",le=\"" });
        match bound.is_infinite() {
            true => page.push_str("+Inf"),
            false => write!(page, "{bound:?}")?,
        }
        page.push('"');
    }
    page.push('}');
    Ok(())
}

fn write_exemplar(page: &mut String, exemplar: &Exemplar) -> fmt::Result {
    let at = exemplar.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.push_str(" # {trace_id=\"");
    for byte in exemplar.trace_id {
        write!(page, "{byte:02x}")?;
    }
    write!(page, "\"}} {} {}.{:03}", exemplar.value, at.as_secs(), at.subsec_millis())
}

fn escape(page: &mut String, text: &str, quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quotes => page.push_str("\\\""),
            other => page.push(other),
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}
