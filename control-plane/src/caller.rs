//! Who is calling: the client certificate of the connection, or a join token in
//! the call's metadata.

use std::{net::SocketAddr, sync::Arc};

use pillion_wire::spiffe::{SpiffeId, TrustDomain};
use tonic::{Request, Status};
use tracing::warn;

use crate::{
    ca::join_token::{JoinKey, TokenError},
    metrics::Metrics,
};

/// The other end of a connection, as its handshake left it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The identity in its certificate, when it presented one. The certificate
    /// itself was verified by the handshake.
    pub identity: Option<SpiffeId>,
}

/// Decides who a caller is.
#[derive(Debug)]
pub struct Authenticator {
    trust_domain: TrustDomain,
    join_key: JoinKey,
    metrics: Arc<Metrics>,
}

/// Why a caller is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// Neither certificate nor token.
    #[error(
        "neither a client certificate of the mesh nor a join token (metadata `authorization: Bearer ...`) was presented"
    )]
    Nothing,
    /// The metadata is not `Bearer` and a token.
    #[error("the authorization metadata is not `Bearer` and a token")]
    Scheme,
    /// The token is not valid.
    #[error("join token refused: {0}")]
    Token(#[from] TokenError),
    /// The certificate is of another trust domain.
    #[error("{0} is not of this mesh's trust domain")]
    TrustDomain(SpiffeId),
    /// Certificate and token are of different accounts.
    #[error("the certificate proves {certificate}, the join token {token}: present only one of them")]
    Contradiction {
        /// What the certificate proves.
        certificate: SpiffeId,
        /// What the token proves.
        token: SpiffeId,
    },
}

impl CallerError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Nothing => "no_credentials",
            Self::Scheme => "bad_scheme",
            Self::Token(error) => error.reason(),
            Self::TrustDomain(_) => "other_trust_domain",
            Self::Contradiction { .. } => "contradiction",
        }
    }
}

impl Authenticator {
    /// Believes certificates of `trust_domain` and tokens signed by `join_key`.
    #[must_use]
    pub const fn new(trust_domain: TrustDomain, join_key: JoinKey, metrics: Arc<Metrics>) -> Self {
        Self { trust_domain, join_key, metrics }
    }

    /// Who sent `request`.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` with the reason, which is also counted and logged.
    pub fn authenticate<T>(&self, request: &Request<T>) -> Result<SpiffeId, Status> {
        let peer = request.extensions().get::<Peer>();
        let authorization = request.metadata().get("authorization");
        self.identify(
            peer.and_then(|peer| peer.identity.as_ref()),
            authorization.map(|value| value.to_str().unwrap_or_default()),
        )
        .map_err(|error| {
            self.metrics.refused_stream(error.reason());
            let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
            warn!(%address, %error, "caller refused");
            Status::unauthenticated(error.to_string())
        })
    }

    fn identify(&self, certificate: Option<&SpiffeId>, authorization: Option<&str>) -> Result<SpiffeId, CallerError> {
        let token = authorization
            .map(|text| {
                let (scheme, token) = text.split_once(' ').ok_or(CallerError::Scheme)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(CallerError::Scheme);
                }
                let identity = self.join_key.verify(token.trim(), &self.trust_domain)?;
                Ok(identity)
            })
            .transpose()?;
        if let Some(certificate) = certificate
            && *certificate.trust_domain() != self.trust_domain
        {
            return Err(CallerError::TrustDomain(certificate.clone()));
        }
        match (certificate, token) {
            (None, None) => Err(CallerError::Nothing),
            (Some(certificate), None) => Ok(certificate.clone()),
            (None, Some(token)) => Ok(token),
            (Some(certificate), Some(token)) if *certificate == token => Ok(token),
            (Some(certificate), Some(token)) => {
                Err(CallerError::Contradiction { certificate: certificate.clone(), token })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    #[test]
    fn certificate_or_token_or_both_alike() {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let key = JoinKey::random();
        let bearer = |account: &str| format!("Bearer {}", key.mint("shop", account, Duration::from_secs(60)).unwrap());
        let id = |account: &str| SpiffeId::new(&domain, "shop", account).unwrap();
        let foreign: SpiffeId = "spiffe://other/ns/shop/sa/a".parse().unwrap();
        let (a, b) = (bearer("a"), bearer("b"));
        let authenticator = Authenticator::new(domain.clone(), key, Arc::new(Metrics::new()));
        let identify = |certificate: Option<&SpiffeId>, text: Option<&str>| {
            authenticator.identify(certificate, text).map_err(|error| error.reason())
        };
        assert_eq!(identify(Some(&id("a")), None), Ok(id("a")));
        assert_eq!(identify(None, Some(&a)), Ok(id("a")));
        assert_eq!(identify(Some(&id("a")), Some(&a)), Ok(id("a")));
        assert_eq!(identify(Some(&id("a")), Some(&b)), Err("contradiction"));
        assert_eq!(identify(None, None), Err("no_credentials"));
        assert_eq!(identify(None, Some("Basic x")), Err("bad_scheme"));
        assert_eq!(identify(Some(&foreign), None), Err("other_trust_domain"));
        assert_eq!(identify(Some(&id("a")), Some("Bearer x")), Err("malformed_token"));
    }
}
