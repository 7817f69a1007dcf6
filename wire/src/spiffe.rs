//! SPIFFE ids: who a workload is, in the URI SAN of its certificate.
//!
//! The only ids of this mesh are those of Kubernetes service accounts,
//! `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`. The syntax is
//! that of the [SPIFFE-ID specification], section 2, narrowed to lower case in
//! scheme and trust domain (which the specification asks implementations to
//! print) and to Kubernetes names in the path. So an id has one spelling, and
//! comparing two of them is comparing text. Nothing here looks at certificates.
//!
//! [SPIFFE-ID specification]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::label::{is_label, is_subdomain};
use crate::text::{excerpt, serde_as_text};

/// The realm of one root of trust, such as `cluster.local`.
///
/// 1 to 255 of `[a-z0-9._-]` (SPIFFE-ID specification, section 2.1). Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name, without scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    /// Reads the name alone: `cluster.local`, not `spiffe://cluster.local`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdError::TrustDomain(excerpt(text)))
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({self})")
    }
}

/// The identity of a workload:
/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
///
/// Cheap to clone; ordered by trust domain, namespace, service account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// The identity of `service_account` in `namespace`.
    ///
    /// # Errors
    /// When the namespace is not a DNS label, or the service account is not a
    /// DNS subdomain.
    pub fn new(trust_domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, SpiffeIdError> {
        if !is_label(namespace) {
            return Err(SpiffeIdError::Namespace(excerpt(namespace)));
        }
        if !is_subdomain(service_account) {
            return Err(SpiffeIdError::ServiceAccount(excerpt(service_account)));
        }
        Ok(Self {
            trust_domain: trust_domain.clone(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain whose roots vouch for this id.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace, or its stand-in outside Kubernetes.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account, or its stand-in outside Kubernetes.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| SpiffeIdError::Scheme(excerpt(text)))?;
        let mut parts = rest.split('/');
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SpiffeIdError::Path(excerpt(text)));
        };
        Self::new(&trust_domain.parse()?, namespace, account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

serde_as_text!(TrustDomain, SpiffeId);

/// The identity of the control plane in `trust_domain`: service account
/// `pillion-control-plane` of namespace `pillion-system`.
///
/// Sidecars accept no other peer on the xDS and CA port, so no workload may
/// ever be given this service account.
#[must_use]
pub fn control_plane_id(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId {
        trust_domain: trust_domain.clone(),
        namespace: "pillion-system".into(),
        service_account: "pillion-control-plane".into(),
    }
}

/// Why a text is not an identity of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// Something else than a lower-case `spiffe://` URI.
    #[error("{0:?} does not begin with \"spiffe://\"")]
    Scheme(String),
    /// Not the name of a trust domain.
    #[error("{0:?} is not a trust domain: want 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    TrustDomain(String),
    /// A path other than a service account's.
    #[error("{0:?} is not of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
    Path(String),
    /// Not a Kubernetes namespace.
    #[error("{0:?} is not a namespace: want 1 to 63 of a-z, 0-9, '-', no '-' at either end")]
    Namespace(String),
    /// Not a Kubernetes service account.
    #[error("{0:?} is not a service account: want a lower-case DNS name of 253 bytes at most")]
    ServiceAccount(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    const SUBDOMAIN: &str = r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,4}";

    proptest! {
        #[test]
        fn ids_round_trip(td in "[a-z0-9._-]{1,255}", ns in LABEL, sa in SUBDOMAIN) {
            let trust_domain: TrustDomain = td.parse().unwrap();
            prop_assert_eq!(trust_domain.to_string(), td.as_str());
            let id = SpiffeId::new(&trust_domain, &ns, &sa).unwrap();
            prop_assert_eq!(id.to_string(), format!("spiffe://{td}/ns/{ns}/sa/{sa}"));
            prop_assert_eq!(id.to_string().parse(), Ok(id.clone()));
            prop_assert_eq!(id.trust_domain(), &trust_domain);
            prop_assert_eq!((id.namespace(), id.service_account()), (&*ns, &*sa));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
        }

        #[test]
        fn whatever_parses_prints_the_same(text in ".{0,80}") {
            if let Ok(domain) = text.parse::<TrustDomain>() {
                prop_assert_eq!(domain.to_string(), text.as_str());
            }
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn nearly_an_id_prints_the_same_or_is_refused(
            text in "(spiffe://)?[a-zA-Z0-9._:@%-]{0,12}(/|//)?(ns|NS)?/[a-z0-9._~-]{0,9}/(sa)?/[a-zA-Z0-9.%-]{0,9}[/?#]?"
        ) {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn everything_but_a_service_accounts_id_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///ns/shop/sa/orders",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/ns/shop/sa",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/orders",
            "spiffe://cluster.local/ns/shop/sa/orders/",
            "spiffe://cluster.local/ns/shop/sa/orders/x",
            "spiffe://cluster.local//ns/shop/sa/orders",
            "spiffe://cluster.local/ns/shop/sa/orders?a",
            "spiffe://cluster.local/ns/shop/sa/orders#a",
            "spiffe://cluster.local/ns/shop/sa/..",
            "spiffe://cluster.local/ns/../sa/orders",
            "spiffe://cluster.local/ns/shop/sa/%6frders",
            "spiffe://cluster.local/ns/a.b/sa/orders",
            "spiffe://cluster.local/ns/shop/sa/Orders",
            "spiffe://Cluster.local/ns/shop/sa/orders",
            "SPIFFE://cluster.local/ns/shop/sa/orders",
            "spiffe://user@cluster.local/ns/shop/sa/orders",
            "spiffe://cluster.local:80/ns/shop/sa/orders",
            "https://cluster.local/ns/shop/sa/orders",
            " spiffe://cluster.local/ns/shop/sa/orders",
            "spiffe://cluster.local/ns/shop/sa/orders\n",
            "spiffe://cluster.local/ns/shop/sa/orders\0",
            "spiffe://cluster.local/sa/orders/ns/shop",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
        let long = format!("spiffe://{}/ns/a/sa/b", "a".repeat(256));
        assert!(long.parse::<SpiffeId>().is_err());
    }

    #[test]
    fn the_longest_id_is_within_the_specifications_2048_bytes() {
        let trust_domain: TrustDomain = "a".repeat(255).parse().unwrap();
        let account = ["a"; 127].join(".");
        let id = SpiffeId::new(&trust_domain, &"n".repeat(63), &account).unwrap();
        assert!(id.to_string().len() <= 2048);
    }

    #[test]
    fn the_control_planes_id_is_an_ordinary_one() {
        let id = control_plane_id(&"cluster.local".parse().unwrap());
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/pillion-system/sa/pillion-control-plane");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
