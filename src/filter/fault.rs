//! Faults on purpose (Envoy `HTTPFault`, gRFC A33).

use std::time::Duration;

use http::request;

use crate::config::{Abort, Fault};
use crate::route;

/// What is done to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// It is held back for so long, and then
    pub delay: Option<Duration>,
    /// answered with this, or goes on.
    pub abort: Option<Abort>,
}

/// What `fault` does to `request`. `chance` gives numbers uniform over all of `u32`; delay and abort are drawn each by
/// itself.
pub fn decide(fault: &Fault, request: &request::Parts, mut chance: impl FnMut() -> u32) -> Harm {
    if !fault.headers.iter().all(|header| route::header_matches(header, request)) {
        return Harm::default();
    }
    let delay = fault.delay.filter(|(_, share)| share.includes(chance()));
    let abort = fault.abort.filter(|(_, share)| share.includes(chance()));
    Harm { delay: delay.map(|(delay, _)| delay), abort: abort.map(|(abort, _)| abort) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HeaderMatch, HeaderName, PerMillion, ValueMatch};
    use http::{Request, StatusCode};

    #[test]
    fn shares_hold_and_only_requests_that_match_are_harmed() {
        let fault = Fault {
            delay: Some((Duration::from_secs(1), PerMillion(250_000))),
            abort: Some((Abort::Http(StatusCode::IM_A_TEAPOT), PerMillion(500_000))),
            headers: vec![HeaderMatch {
                name: HeaderName::Field(http::HeaderName::from_static("x-chaos")),
                value: ValueMatch::Present,
                invert: false,
            }],
            max_active: None,
        };
        let parts = |chaos: bool| {
            let builder = Request::builder().uri("/");
            let builder = if chaos { builder.header("x-chaos", "1") } else { builder };
            builder.body(()).expect("valid").into_parts().0
        };
        assert_eq!(decide(&fault, &parts(false), || 0), Harm::default());
        let (mut delays, mut aborts) = (0, 0);
        let mut number = 0_u32;
        for _ in 0..100_000 {
            let harm = decide(&fault, &parts(true), || {
                number = number.wrapping_add(0x9e37_79b9); // A Weyl sequence: even over all of u32.
                number
            });
            delays += u32::from(harm.delay.is_some());
            aborts += u32::from(harm.abort.is_some());
        }
        assert!(delays.abs_diff(25_000) < 500 && aborts.abs_diff(50_000) < 500, "{delays} {aborts}");
    }
}
