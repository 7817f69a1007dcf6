//! Asking the mesh's CA for a certificate.
//!
//! The messages and the method of `istio.v1.auth.IstioCertificateService`
//! ([`ca.proto`] of Istio's security API, package `istio.v1.auth`), so that
//! ztunnel, Istio agents and istiod can stand on either side. Written by hand,
//! in the shape that a code generator would give them: the file is a page long
//! and building needs no `protoc`.
//!
//! Who is calling is said by the connection (a client certificate) or by the
//! `authorization` metadata (a token), never by the message; the CSR matters
//! only for its public key.
//!
//! [`ca.proto`]: https://github.com/istio/api/blob/master/security/v1alpha1/ca.proto

pub mod client;
pub mod server;

use crate::xds::Struct;

/// Full name of the service (`package istio.v1.auth`).
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";

/// Path of its only method.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Longest CSR that the CA looks at, in bytes of PEM. A CSR for RSA 4096 has
/// under 2 KiB; the rest is room for longer algorithms.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// A request to sign a public key for the caller
/// (`istio.v1.auth.IstioCertificateRequest`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateRequest {
    /// The PKCS #10 request (RFC 2986) in PEM, at most [`MAX_CSR_BYTES`].
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Lifetime wanted, in seconds; the CA may shorten it.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Whatever a particular CA wants to know besides. Ours reads none of it.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

impl prost::Name for CreateCertificateRequest {
    const NAME: &'static str = "IstioCertificateRequest";
    const PACKAGE: &'static str = "istio.v1.auth";
}

/// A certificate and what vouches for it
/// (`istio.v1.auth.IstioCertificateResponse`).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CreateCertificateResponse {
    /// PEM: the leaf, then its intermediates, the root last. All but
    /// the last are presented to peers; the last is the trust anchor.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl prost::Name for CreateCertificateResponse {
    const NAME: &'static str = "IstioCertificateResponse";
    const PACKAGE: &'static str = "istio.v1.auth";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::{Message, Name};
    use tonic::{Code, Request, Response, Status};

    use super::client::IstioCertificateServiceClient;
    use super::server::{IstioCertificateService, IstioCertificateServiceServer};
    use super::*;
    use crate::xds::{Value, value::Kind};

    proptest! {
        #[test]
        fn requests_round_trip(
            csr in ".{0,200}",
            validity_duration in any::<i64>(),
            metadata in prop::option::of(prop::collection::hash_map(".{0,9}", ".{0,9}", 0..4)),
        ) {
            let string = |text| Value { kind: Some(Kind::StringValue(text)) };
            let metadata = metadata.map(|map| Struct {
                fields: map.into_iter().map(|(key, text)| (key, string(text))).collect(),
            });
            let request = CreateCertificateRequest { csr, validity_duration, metadata };
            let bytes = request.encode_to_vec();
            prop_assert_eq!(CreateCertificateRequest::decode(&*bytes), Ok(request));
        }

        #[test]
        fn responses_round_trip(cert_chain in prop::collection::vec(".{0,50}", 0..4)) {
            let response = CreateCertificateResponse { cert_chain };
            let bytes = response.encode_to_vec();
            prop_assert_eq!(CreateCertificateResponse::decode(&*bytes), Ok(response));
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = CreateCertificateRequest::decode(&*bytes);
            let _ = CreateCertificateResponse::decode(&*bytes);
        }
    }

    /// Bytes as Istio's own `ca.proto` (csr = 1, validity_duration = 3,
    /// metadata = 4; cert_chain = 1) lays them out.
    #[test]
    fn bytes_are_those_of_istio() {
        let request = CreateCertificateRequest {
            csr: "ab".to_owned(),
            validity_duration: 86_400,
            metadata: Some(Struct::default()),
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02ab\x18\x80\xa3\x05\x22\x00");
        let response = CreateCertificateResponse { cert_chain: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(response.encode_to_vec(), b"\x0a\x01a\x0a\x01b");
        assert_eq!(CreateCertificateRequest::full_name(), "istio.v1.auth.IstioCertificateRequest");
    }

    /// A CA that echoes the CSR, or refuses an empty one.
    struct Echo;

    #[tonic::async_trait]
    impl IstioCertificateService for Echo {
        async fn create_certificate(
            &self,
            request: Request<CreateCertificateRequest>,
        ) -> Result<Response<CreateCertificateResponse>, Status> {
            let csr = request.into_inner().csr;
            if csr.is_empty() {
                return Err(Status::invalid_argument("no CSR"));
            }
            let cert_chain = vec![csr];
            Ok(Response::new(CreateCertificateResponse { cert_chain }))
        }
    }

    async fn ask(csr: String, limit: usize) -> Result<Vec<String>, Code> {
        let server = IstioCertificateServiceServer::new(Echo).max_decoding_message_size(limit);
        let mut client = IstioCertificateServiceClient::new(server);
        let request = CreateCertificateRequest { csr, ..CreateCertificateRequest::default() };
        match client.create_certificate(request).await {
            Ok(response) => Ok(response.into_inner().cert_chain),
            Err(status) => Err(status.code()),
        }
    }

    #[tokio::test]
    async fn client_and_server_understand_each_other() {
        let answer = ask("csr".to_owned(), MAX_CSR_BYTES).await;
        assert_eq!(answer, Ok(vec!["csr".to_owned()]));
        let refusal = ask(String::new(), MAX_CSR_BYTES).await;
        assert_eq!(refusal, Err(Code::InvalidArgument));
    }

    #[tokio::test]
    async fn requests_over_the_decode_limit_are_refused() {
        let answer = ask("c".repeat(2000), 1000).await;
        assert_eq!(answer, Err(Code::OutOfRange));
    }

    #[tokio::test]
    async fn other_methods_are_unimplemented() {
        let mut server = IstioCertificateServiceServer::new(Echo);
        let request = http::Request::post("/istio.v1.auth.IstioCertificateService/Other")
            .body(tonic::body::Body::empty())
            .unwrap();
        let response = tonic::codegen::Service::call(&mut server, request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
