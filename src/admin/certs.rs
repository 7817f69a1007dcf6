//! `/certs`: the chain that we present and the roots that we trust. Never a key.

use std::time::SystemTime;

use pillion_wire::spiffe::SpiffeId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Admin;
use super::state::seconds;

pub(super) fn certs(admin: &Admin) -> Value {
    let now = seconds(SystemTime::now());
    let identity = admin.shared.identity.load();
    let identity = identity.as_ref().as_ref().map(|identity| {
        json!({
            "id": identity.id.to_string(),
            "not_before": seconds(identity.not_before),
            "not_after": seconds(identity.not_after),
            "expires_in_seconds": seconds(identity.not_after).saturating_sub(now),
            "chain": identity.key.cert.iter().map(|certificate| described(certificate, now)).collect::<Vec<_>>(),
            "roots_in_use": identity.roots.len(),
        })
    });
    let file = &admin.shared.settings.control_plane.root;
    let roots: Value = match std::fs::read(file) {
        Ok(text) => CertificateDer::pem_slice_iter(&text)
            .map(|root| root.map_or_else(|error| json!({ "error": error.to_string() }), |root| described(&root, now)))
            .collect(),
        Err(error) => json!({ "error": error.to_string() }),
    };
    json!({ "identity": identity, "roots_file": file, "roots": roots })
}

fn described(certificate: &CertificateDer<'_>, now: u64) -> Value {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return json!({ "error": "it cannot be parsed" });
    };
    let names = parsed.subject_alternative_name().ok().flatten();
    let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    let uris: Vec<String> = uris.collect();
    let time = |seconds: i64| u64::try_from(seconds).unwrap_or_default();
    let not_after = time(parsed.validity().not_after.timestamp());
    json!({
        "subject": parsed.subject().to_string(),
        "issuer": parsed.issuer().to_string(),
        "serial": parsed.raw_serial_as_string(),
        "spiffe_ids": uris.iter().filter(|uri| uri.parse::<SpiffeId>().is_ok()).collect::<Vec<_>>(),
        "is_ca": parsed.is_ca(),
        "not_before": time(parsed.validity().not_before.timestamp()),
        "not_after": not_after,
        "expires_in_seconds": not_after.saturating_sub(now),
    })
}
