//! Takes the money and says which version of itself did.

use http::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::serve::{self, Answer, Service};

/// The payment service.
#[derive(Debug)]
pub(super) struct Payment {
    paid: Paid,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paid {
    /// The version that answers.
    pub(super) version: String,
}

impl Payment {
    /// A payment service of this version.
    pub(super) const fn new(version: String) -> Self {
        Self { paid: Paid { version } }
    }
}

impl Service for Payment {
    async fn answer(&self, _request: Request<Incoming>) -> Answer {
        serve::json(&self.paid)
    }
}
