//! The certificate service that sidecars call
//! (`istio.v1.auth.IstioCertificateService/CreateCertificate`).

use std::{sync::Arc, time::Duration};

use pillion_wire::ca::{
    CreateCertificateRequest, CreateCertificateResponse, MAX_CSR_BYTES,
    server::{IstioCertificateService, IstioCertificateServiceServer},
};
use tonic::{Request, Response, Status};
use tracing::{error, field, info, info_span, warn};

use super::{
    authority::Authority,
    csr::{self, CsrError},
    pem::pem,
    sign::ServerNames,
};
use crate::{caller::Authenticator, metrics::Metrics};

/// The largest request that is decoded: a CSR and its wrapping.
const MAX_REQUEST_BYTES: usize = MAX_CSR_BYTES + 4096;

/// The shortest lifetime, for tests that renew under load.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// Signs certificates for callers that prove who they are.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Root and intermediate.
    pub authority: Authority,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// The longest lifetime, also what a caller gets that names none.
    pub max_lifetime: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let caller = self.authenticator.authenticate(&request)?;
        let span = info_span!("certificate", otel.kind = "server", %caller, otel.status_code = field::Empty);
        let _in_span = span.enter(); // Nothing below waits.
        let request = request.into_inner();
        let key = csr::public_key(&request.csr, &caller).map_err(|error| {
            span.record("otel.status_code", "ERROR");
            self.metrics.refused_certificate(error.reason());
            warn!(%caller, %error, "certificate request refused");
            refusal(&error)
        })?;
        let lifetime = self.lifetime(request.validity_duration);
        let leaf = self.authority.signer().sign(&caller, &key, lifetime, &ServerNames::default()).map_err(|error| {
            span.record("otel.status_code", "ERROR");
            self.metrics.refused_certificate("signing_failed");
            error!(%caller, %error, "cannot sign");
            Status::internal("the certificate could not be signed")
        })?;
        self.metrics.certificate();
        info!(%caller, lifetime_seconds = lifetime.as_secs(), "certificate signed");
        // The last entry is the trust bundle, which may hold several roots.
        let cert_chain =
            vec![pem(&leaf), pem(self.authority.intermediate()), self.authority.roots().iter().map(pem).collect()];
        Ok(Response::new(CreateCertificateResponse { cert_chain }))
    }
}

impl Certificates {
    /// The service as gRPC serves it.
    #[must_use]
    pub fn into_service(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn lifetime(&self, requested_seconds: i64) -> Duration {
        match u64::try_from(requested_seconds) {
            Ok(0) | Err(_) => self.max_lifetime,
            Ok(seconds) => Duration::from_secs(seconds).min(self.max_lifetime).max(MIN_LIFETIME),
        }
    }
}

fn refusal(error: &CsrError) -> Status {
    let text = format!("certificate request refused: {error}");
    if error.is_forbidden() { Status::permission_denied(text) } else { Status::invalid_argument(text) }
}
