//! `HTTPRequestMirrorFilter`.

use super::super::service_ref;
use crate::{
    core::{
        filter::{BackendFilters, Mirror},
        route::Backend,
    },
    document::{
        Issues, Metadata,
        gateway::{Fraction, MirrorFilter},
        path::FieldPath,
    },
};

const MILLION: u32 = 1_000_000;

pub(super) fn read(
    raw: MirrorFilter,
    place: usize,
    metadata: &Metadata,
    path: &FieldPath,
    issues: &mut Issues,
) -> Option<Mirror> {
    let at = path.key("backendRef");
    if raw.backend_ref.weight.is_some() || raw.backend_ref.filters.is_some() {
        issues.error(at.clone(), "a mirror has neither weight nor filters");
    }
    let per_million = match (raw.percent, raw.fraction) {
        (Some(_), Some(_)) => {
            issues.error(path.key("fraction"), "percent and fraction exclude each other");
            return None;
        }
        (Some(percent), None) if percent > 100 => {
            issues.error(path.key("percent"), format!("{percent} is not in 0..=100"));
            return None;
        }
        (Some(percent), None) => percent * (MILLION / 100),
        (None, Some(fraction)) => of_million(&fraction, &path.key("fraction"), issues)?,
        (None, None) => MILLION,
    };
    let (service, port, subset) = service_ref(raw.backend_ref, metadata, &at, issues)?;
    Some(Mirror {
        place,
        backend: Backend { service, port, subset, weight: 1, filters: BackendFilters::default() },
        per_million,
    })
}

fn of_million(raw: &Fraction, path: &FieldPath, issues: &mut Issues) -> Option<u32> {
    let denominator = raw.denominator.unwrap_or(100);
    if denominator == 0 || raw.numerator > denominator {
        issues.error(path.clone(), "the denominator is at least 1, and not less than the numerator");
        return None;
    }
    u32::try_from(u64::from(raw.numerator) * u64::from(MILLION) / u64::from(denominator)).ok()
}
