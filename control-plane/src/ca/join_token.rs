//! Join tokens: how a workload without a certificate proves its service account.
//!
//! `pillion.v1.<claims>.<mac>`: the claims are base64url of JSON with namespace,
//! service account and expiry; the MAC is HMAC-SHA256 of all before it, with a key
//! that only the control plane has. A token is good for one account and nothing else.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pillion_wire::spiffe::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::files;

/// File of the key in the state folder.
const KEY_FILE: &str = "join.key";
/// Length of the key.
const KEY_BYTES: usize = 32;
/// What every token starts with.
const PREFIX: &str = "pillion.v1.";
/// The longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// The key that makes and checks tokens.
pub struct JoinKey(hmac::Key);

impl std::fmt::Debug for JoinKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JoinKey(..)")
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token.
    #[error("it is not of the form pillion.v1.<claims>.<mac>")]
    Malformed,
    /// It was not made with this control plane's key.
    #[error("it was not made by this control plane")]
    Forged,
    /// It is too old.
    #[error("it has expired")]
    Expired,
}

impl TokenError {
    /// A stable name for metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_token",
            Self::Forged => "forged_token",
            Self::Expired => "expired_token",
        }
    }
}

/// Why a token or its key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The key cannot be read or written.
    #[error("join key in {dir}: {source}")]
    Key {
        /// The state folder.
        dir: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The account is not a Kubernetes name.
    #[error("namespace `{namespace}` or service account `{service_account}` is not a DNS name")]
    Account {
        /// The namespace.
        namespace: String,
        /// The account.
        service_account: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Claims {
    ns: String,
    sa: String,
    exp: u64,
}

/// Makes a token for one account with the key in `state_dir`, which is made when
/// there is none.
///
/// # Errors
///
/// When the key cannot be read or written, or the account is no account.
pub fn mint(state_dir: &Path, namespace: &str, service_account: &str, ttl: Duration) -> Result<String, MintError> {
    JoinKey::load(state_dir)?.mint(namespace, service_account, ttl)
}

impl JoinKey {
    /// The key in `state_dir`, made when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, or is not of the right length.
    pub fn load(state_dir: &Path) -> Result<Self, MintError> {
        let fail = |source| MintError::Key { dir: state_dir.display().to_string(), source };
        files::ensure_dir(state_dir).map_err(fail)?;
        let path = state_dir.join(KEY_FILE);
        if let Some(secret) = files::read(&path, files::SECRET).map_err(fail)? {
            if secret.len() != KEY_BYTES {
                return Err(fail(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    format!("{KEY_FILE} holds {} bytes, not {KEY_BYTES}", secret.len()),
                )));
            }
            return Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        }
        let secret = random_secret();
        files::write(&path, files::SECRET, &secret).map_err(fail)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// A key of its own, for one process.
    #[must_use]
    pub fn random() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random_secret()))
    }

    /// A token for one account.
    ///
    /// # Errors
    ///
    /// When the account is no account.
    pub fn mint(&self, namespace: &str, service_account: &str, ttl: Duration) -> Result<String, MintError> {
        use pillion_wire::label::{is_label, is_subdomain};
        if !is_label(namespace) || !is_subdomain(service_account) {
            return Err(MintError::Account {
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
            });
        }
        let claims = serde_json::json!({
            "ns": namespace,
            "sa": service_account,
            "exp": now().saturating_add(ttl).as_secs(),
        });
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mac = hmac::sign(&self.0, signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref())))
    }

    /// The account that `token` proves.
    ///
    /// # Errors
    ///
    /// When it is not a token, not ours, or too old. Nothing in it is looked at
    /// before its MAC was found right.
    pub fn verify(&self, token: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, TokenError> {
        if token.len() > MAX_TOKEN_BYTES || !token.starts_with(PREFIX) {
            return Err(TokenError::Malformed);
        }
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let claims = signed.strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
        let (claims, mac) = (decode(claims)?, decode(mac)?);
        hmac::verify(&self.0, signed.as_bytes(), &mac).map_err(|_| TokenError::Forged)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if claims.exp <= now().as_secs() {
            return Err(TokenError::Expired);
        }
        SpiffeId::new(trust_domain, &claims.ns, &claims.sa).map_err(|_| TokenError::Malformed)
    }
}

fn random_secret() -> [u8; KEY_BYTES] {
    let mut secret = [0; KEY_BYTES];
    // aws-lc aborts the process rather than fail here; the fallback is as strong.
    if SystemRandom::new().fill(&mut secret).is_err() {
        secret = rand::random();
    }
    secret
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    #[test]
    fn a_token_proves_its_account_only() {
        let key = JoinKey::random();
        let token = key.mint("shop", "orders", MINUTE).unwrap();
        let identity = key.verify(&token, &domain()).unwrap();
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
    }

    #[test]
    fn expired_forged_and_altered_tokens_are_refused() {
        let key = JoinKey::random();
        let expired = key.mint("shop", "orders", Duration::ZERO).unwrap();
        assert_eq!(key.verify(&expired, &domain()), Err(TokenError::Expired));
        let forged = JoinKey::random().mint("shop", "orders", MINUTE).unwrap();
        assert_eq!(key.verify(&forged, &domain()), Err(TokenError::Forged));
        let token = key.mint("shop", "orders", MINUTE).unwrap();
        let mac = token.rsplit_once('.').unwrap().1;
        let claims = serde_json::json!({"ns": "shop", "sa": "payment", "exp": u64::MAX});
        let altered = format!("{PREFIX}{}.{mac}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        assert_eq!(key.verify(&altered, &domain()), Err(TokenError::Forged));
    }

    #[test]
    fn the_key_is_kept_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let token = mint(&state, "shop", "orders", MINUTE).unwrap();
        assert!(JoinKey::load(&state).unwrap().verify(&token, &domain()).is_ok());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&state), 0o700);
    }

    #[test]
    fn a_nonsense_account_gets_no_token() {
        assert!(JoinKey::random().mint("Shop", "x/y", MINUTE).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(text in ".{0,80}", tail in "[A-Za-z0-9_.-]{0,80}") {
            let key = JoinKey::random();
            prop_assert!(key.verify(&text, &domain()).is_err());
            let prefixed = format!("{PREFIX}{tail}");
            prop_assert!(key.verify(&prefixed, &domain()).is_err());
        }
    }
}
