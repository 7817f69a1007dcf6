use std::net::SocketAddr;

use super::*;
use crate::identity::test_ca::{Ca, ORDERS, Sidecar};
use crate::tls::test_control::Server;
use crate::tls::test_pki::Authority;

async fn attempt(ca: &Ca, current: Option<&Identity>) -> Result<Identity, IssueError> {
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &[]);
    issue(&sidecar.bootstrap, current, 0).await.map(|issued| issued.identity)
}

#[tokio::test]
async fn a_certificate_is_issued_for_our_own_key() {
    let identity = attempt(&Ca::new(), None).await.expect("issued");
    assert_eq!(identity.id.to_string(), ORDERS);
    assert_eq!(identity.key.cert.len(), 2, "leaf and intermediate, not the root");
    let left = identity.not_after.duration_since(SystemTime::now()).expect("valid");
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
    let shown = format!("{identity:?}");
    assert!(shown.contains(ORDERS) && !shown.contains("key"), "{shown}");
}

#[tokio::test]
async fn the_token_proves_who_we_are_until_the_certificate_does() {
    let ca = Ca::new();
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &[]);
    let first = issue(&sidecar.bootstrap, None, 0).await.expect("issued").identity;
    issue(&sidecar.bootstrap, Some(&first), 0).await.expect("renewed");
    issue(&sidecar.bootstrap, Some(&first), 1).await.expect("renewed by token after a failure");
    std::fs::remove_file(sidecar.token_file()).expect("was there");
    issue(&sidecar.bootstrap, Some(&first), 1).await.expect("a certificate is proof enough");
    let token = Some("Bearer pillion.v1.token".to_owned());
    assert_eq!(ca.tokens(), [token.clone(), None, token, None]);
    let peers: Vec<_> = server.peers.lock().expect("not poisoned").clone();
    assert_eq!(peers, [None, Some(first.id.clone()), None, Some(first.id)]);
    let error = issue(&sidecar.bootstrap, None, 0).await.expect_err("nothing to prove who we are");
    assert_eq!(error.reason(), "credentials");
}

#[tokio::test]
async fn an_expired_certificate_is_not_shown() {
    let ca = Ca::new();
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &[]);
    let mut old = issue(&sidecar.bootstrap, None, 0).await.expect("issued").identity;
    old.not_after = SystemTime::now() - Duration::from_secs(1);
    issue(&sidecar.bootstrap, Some(&old), 0).await.expect("issued by token");
    assert_eq!(*server.peers.lock().expect("not poisoned"), [None, None]);
}

#[tokio::test]
async fn a_certificate_for_another_key_name_or_time_is_of_no_use() {
    let ca = Ca::new();
    ca.behave(|ca| ca.other_key = true);
    let error = attempt(&ca, None).await.expect_err("another key");
    assert_eq!(error.reason(), "answer", "{error}");
    ca.behave(|ca| {
        ca.other_key = false;
        ca.id = "spiffe://cluster.local/ns/shop/sa/payment";
    });
    let error = attempt(&ca, None).await.expect_err("another name");
    assert!(error.to_string().contains("sa/payment"), "{error}");
    ca.behave(|ca| {
        ca.id = ORDERS;
        ca.lifetime = time::Duration::seconds(-10);
    });
    let error = attempt(&ca, None).await.expect_err("over already");
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn what_the_ca_says_is_passed_on() {
    let ca = Ca::new();
    ca.behave(|ca| ca.refuse = true);
    let error = attempt(&ca, None).await.expect_err("refused");
    assert_eq!(error.reason(), "refused");
    assert!(error.to_string().contains("PermissionDenied") && error.to_string().contains("not today"), "{error}");
}

#[tokio::test]
async fn only_the_control_plane_itself_is_asked() {
    let ca = Ca::new();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let impostor = Server::start(anywhere, &ca.authority, ORDERS, ca.routes()).await;
    let sidecar = Sidecar::new(&ca.authority, impostor.address, &[]);
    let error = issue(&sidecar.bootstrap, None, 0).await.expect_err("another workload");
    assert!(error.to_string().contains(&format!("the peer is {ORDERS}")), "{error}");
    let stranger = ca.start().await;
    let sidecar = Sidecar::new(&Authority::new(), stranger.address, &[]);
    let error = issue(&sidecar.bootstrap, None, 0).await.expect_err("another root");
    assert_eq!(error.reason(), "unreachable");
    assert_eq!(ca.tokens(), [], "and no token was shown to either");
}

#[test]
fn an_empty_or_foreign_answer_is_refused() {
    let authority = Authority::new();
    let key = KeyPair::generate().expect("key");
    let id: SpiffeId = ORDERS.parse().expect("literal");
    for chain in [vec![], vec![String::new()], vec!["hello".to_owned()], vec![authority.root_pem()]] {
        let answer = CreateCertificateResponse { cert_chain: chain };
        assert!(accept(&id, &key, authority.roots(), &answer, SystemTime::now()).is_err());
    }
}
