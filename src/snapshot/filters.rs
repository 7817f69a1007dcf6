//! What routes do to requests and responses, with everything that they need at hand.

use std::sync::Arc;

use http::HeaderValue;

use super::Cluster;
use crate::config::{self, Cors, Fault, HeaderChange, HeaderChanges, HttpFilter, Override, PathRewrite, PerMillion};

/// What one route does besides choosing a cluster. Routes that do nothing have none.
#[derive(Debug, Default)]
pub struct Filters {
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// Faults on purpose.
    pub fault: Option<Fault>,
    /// How sessions are kept.
    pub session: Option<Arc<config::Session>>,
    /// The path that the host sees.
    pub path: Option<PathRewrite>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Changes of answers that the route itself gives.
    pub answers: Vec<HeaderChange>,
}

/// A compiled `RequestMirrorPolicy`.
#[derive(Debug)]
pub struct Mirror {
    /// Who gets copies.
    pub cluster: Arc<Cluster>,
    /// Of how many requests.
    pub share: PerMillion,
    /// Is `-shadow` added to the host?
    pub suffix: bool,
}

/// What is done to heads on the way to one cluster and back. Clusters for which nothing is have none.
#[derive(Debug)]
pub struct Changes {
    /// Header fields.
    pub headers: HeaderChanges,
    /// The host that is asked for.
    pub authority: Option<HeaderValue>,
}

impl Filters {
    /// What a route does behind the HTTP filters of its listener. `None`: nothing.
    pub fn new(config: &config::RouteFilters, listener: &[HttpFilter], mirrors: Vec<Mirror>) -> Option<Self> {
        let said = |name: &str| config.overrides.iter().find(|(own, _)| own == name).map(|(_, said)| said);
        let mut filters =
            Self { path: config.path.clone(), mirrors, answers: config.answers.clone(), ..Self::default() };
        for filter in listener {
            match filter {
                HttpFilter::Cors { name } => {
                    if let Some(Override::Cors(cors)) = said(name) {
                        filters.cors = Some(cors.clone());
                    }
                }
                HttpFilter::Fault { name, otherwise } => match said(name) {
                    Some(Override::Fault(fault)) => filters.fault = Some(fault.clone()),
                    Some(_) => {}
                    None => filters.fault = filters.fault.take().or_else(|| otherwise.clone()),
                },
                HttpFilter::Session { name, otherwise } => match said(name) {
                    Some(Override::Session(session)) => filters.session = Some(Arc::new(session.clone())),
                    Some(_) => {}
                    None => {
                        filters.session = filters.session.take().or_else(|| otherwise.clone().map(Arc::new));
                    }
                },
            }
        }
        let is_idle = filters.cors.is_none()
            && filters.fault.is_none()
            && filters.session.is_none()
            && filters.path.is_none()
            && filters.mirrors.is_empty()
            && filters.answers.is_empty();
        (!is_idle).then_some(filters)
    }
}

impl Changes {
    /// `None`: there is nothing to do.
    pub fn new(cluster: &config::WeightedCluster) -> Option<Self> {
        let (headers, authority) = (&cluster.headers, &cluster.authority);
        let is_idle = *headers == HeaderChanges::default() && authority.is_none();
        (!is_idle).then(|| Self { headers: headers.clone(), authority: authority.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(seconds: u64) -> Fault {
        Fault { delay: Some((Duration::from_secs(seconds), PerMillion::ALL)), ..Fault::default() }
    }

    /// Seconds of delay for a route that says so much to a filter `f`, which says so much itself.
    fn delay(said: Option<Override>, otherwise: Option<u64>, listener: bool) -> Option<u64> {
        let filter = HttpFilter::Fault { name: "f".to_owned(), otherwise: otherwise.map(fault) };
        let overrides = said.into_iter().map(|said| ("f".to_owned(), said)).collect();
        let config = config::RouteFilters { overrides, ..config::RouteFilters::default() };
        let listener = if listener { std::slice::from_ref(&filter) } else { &[] };
        Filters::new(&config, listener, Vec::new())?.fault?.delay.map(|(delay, _)| delay.as_secs())
    }

    #[test]
    fn a_route_speaks_before_the_filter_and_only_to_filters_that_are_there() {
        for (said, otherwise, listener, expected) in [
            (None, None, true, None),
            (None, Some(1), true, Some(1)),
            (Some(Override::Fault(fault(2))), Some(1), true, Some(2)),
            (Some(Override::Fault(fault(2))), None, true, Some(2)),
            (Some(Override::Disabled), Some(1), true, None),
            (Some(Override::Fault(fault(2))), None, false, None),
        ] {
            assert_eq!(delay(said.clone(), otherwise, listener), expected, "{said:?} {otherwise:?} {listener}");
        }
    }
}
