use std::fs;

use tokio::time::{sleep, timeout};

use super::*;
use crate::identity::test_ca::{Ca, Sidecar};
use crate::tls::test_pki::Authority;

const SOON: Duration = Duration::from_secs(20);

fn lasting(life: Duration) -> Identity {
    let ca = Ca::new();
    let key = rcgen::KeyPair::generate().expect("key");
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into();
    let private = crate::tls::provider().key_provider.load_private_key(private).expect("key");
    Identity {
        id: "spiffe://cluster.local/ns/shop/sa/orders".parse().expect("literal"),
        key: Arc::new(rustls::sign::CertifiedKey::new(Vec::new(), private)),
        roots: ca.authority.roots(),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH + life,
    }
}

#[test]
fn renewal_is_at_half_life_give_or_take_a_tenth() {
    let identity = lasting(Duration::from_secs(4000));
    let at = |chance| renewal_wait(&identity, SystemTime::UNIX_EPOCH, chance);
    assert_eq!((at(0.0).as_secs(), at(0.5).as_secs(), at(1.0).as_secs()), (1800, 2000, 2200));
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(5000);
    assert_eq!(renewal_wait(&identity, late, 0.5), SHORTEST_WAIT);
}

#[test]
fn a_retry_comes_while_the_old_certificate_still_lives() {
    let identity = lasting(Duration::from_secs(100));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let backoff = Duration::from_secs(30);
    assert_eq!(retry_wait(backoff, Some(&identity), at(0)), backoff);
    assert_eq!(retry_wait(backoff, Some(&identity), at(90)), Duration::from_secs(5));
    assert_eq!(retry_wait(backoff, Some(&identity), at(101)), backoff, "it is too late to hurry");
    assert_eq!(retry_wait(backoff, None, at(0)), backoff);
}

#[tokio::test]
async fn short_lived_certificates_are_renewed_before_they_end() {
    let ca = Ca::new();
    ca.behave(|ca| ca.lifetime = time::Duration::seconds(3));
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &["--certificate-lifetime=3s"]);
    let slot = Arc::new(Slot::new(None));
    let mut changes = slot.subscribe();
    let metrics = Arc::new(Metrics::new());
    let task = tokio::spawn(run(Arc::clone(&sidecar.bootstrap), Arc::clone(&slot), Arc::clone(&metrics), None));
    for _ in 0..3 {
        timeout(SOON, changes.changed()).await.expect("renewed").expect("alive");
        assert!(is_valid(Option::as_ref(&slot.load_full())));
    }
    assert!(metrics.encode().contains("pillion_certificates_total{result=\"ok\"} 3"), "{}", metrics.encode());
    task.abort();
}

#[tokio::test]
async fn the_old_certificate_stays_while_the_ca_refuses_and_attempts_go_on() {
    let ca = Ca::new();
    ca.behave(|ca| ca.refuse = true);
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &[]);
    let slot = Arc::new(Slot::new(None));
    let mut changes = slot.subscribe();
    let task = tokio::spawn(run(Arc::clone(&sidecar.bootstrap), Arc::clone(&slot), Arc::default(), None));
    timeout(SOON, async {
        while ca.tokens().len() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is tried again");
    assert!(slot.load().is_none());
    ca.behave(|ca| ca.refuse = false);
    timeout(SOON, changes.changed()).await.expect("issued").expect("alive");
    task.abort();
}

#[tokio::test]
async fn new_roots_are_taken_over_and_broken_ones_are_not() {
    let (ca, other) = (Ca::new(), Authority::new());
    let server = ca.start().await;
    let sidecar = Sidecar::new(&ca.authority, server.address, &[]);
    let slot = Arc::new(Slot::new(None));
    let mut changes = slot.subscribe();
    let task = tokio::spawn(run(Arc::clone(&sidecar.bootstrap), Arc::clone(&slot), Arc::default(), None));
    timeout(SOON, changes.changed()).await.expect("issued").expect("alive");
    let before = slot.load_full();
    fs::write(sidecar.root_file(), "-----BEGIN nonsense").expect("writable");
    sleep(ROOTS_POLL + Duration::from_millis(500)).await;
    assert!(Arc::ptr_eq(&before, &slot.load_full()));
    fs::write(sidecar.root_file(), format!("{}{}", ca.authority.root_pem(), other.root_pem())).expect("writable");
    timeout(SOON, changes.changed()).await.expect("published").expect("alive");
    let after = slot.load_full();
    let (before, after) = (Option::as_ref(&before).expect("some"), Option::as_ref(&after).expect("some"));
    assert_eq!((before.roots.len(), after.roots.len()), (1, 2));
    assert!(Arc::ptr_eq(&before.key, &after.key), "the certificate is the same");
    task.abort();
}
