//! Settings of the access log: which requests, in which words, and where to.

use std::path::PathBuf;
use std::str::FromStr;

use super::log_format::Format;
use super::value::ValueError;

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that the proxy answered itself, or that ended in a 5xx.
    #[default]
    Errors,
    /// Those, and of the rest so many in a million: written `sampled` (1 %) or `sampled:10%`.
    Sampled(u32),
    /// All.
    All,
}

/// The share of `sampled` alone.
const SAMPLED: u32 = 10_000;

/// How a line is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// By a format string in Envoy's language; `text` is Envoy's default.
    Text(Format),
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFile {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// A file: made when it is not there, appended to, opened again on SIGHUP.
    Path(PathBuf),
}

impl FromStr for AccessLog {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ValueError::AccessLog(text.to_owned());
        match text {
            "off" => Ok(Self::Off),
            "errors" => Ok(Self::Errors),
            "all" => Ok(Self::All),
            "sampled" => Ok(Self::Sampled(SAMPLED)),
            _ => {
                let share = text.strip_prefix("sampled:").and_then(|rest| rest.strip_suffix('%')).ok_or_else(wrong)?;
                let share: f64 = share.trim().parse().map_err(|_cause| wrong())?;
                if !(0.0..=100.0).contains(&share) {
                    return Err(wrong());
                }
                Ok(Self::Sampled((share * 10_000.0).round() as u32))
            }
        }
    }
}

impl FromStr for AccessLogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text(Format::envoy())),
            // A word without any operator is a slip, not a format.
            _ if !text.contains('%') => Err(ValueError::AccessLogFormat(text.to_owned())),
            _ => Ok(Self::Text(text.parse()?)),
        }
    }
}

impl FromStr for AccessLogFile {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err(ValueError::AccessLogFile),
            "stderr" | "/dev/stderr" => Ok(Self::Stderr),
            "stdout" | "/dev/stdout" => Ok(Self::Stdout),
            path => Ok(Self::Path(path.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_per_cent() {
        for (text, wanted) in [
            ("sampled", Some(AccessLog::Sampled(10_000))),
            ("sampled:10%", Some(AccessLog::Sampled(100_000))),
            ("sampled:0.5%", Some(AccessLog::Sampled(5_000))),
            ("sampled:0%", Some(AccessLog::Sampled(0))),
            ("sampled:101%", None),
            ("sampled:-1%", None),
            ("sampled:NaN%", None),
            ("sampled:10", None),
            ("some", None),
        ] {
            assert_eq!(text.parse().ok(), wanted, "{text}");
        }
    }
}
