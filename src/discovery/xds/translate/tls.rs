//! Transport sockets: mutual TLS with the mesh's own certificates, or nothing.

use pillion_wire::xds::core::{TransportSocket, transport_socket};
use pillion_wire::xds::tls::common_tls_context::ValidationContextType;
use pillion_wire::xds::tls::{CertificateValidationContext, CommonTlsContext, DownstreamTlsContext};
use pillion_wire::xds::{Any, type_url};

use super::at::{At, Reason, Refusal, pass_over, refuse, unpack};

/// A server that asks every client for its certificate. Which certificates and roots: those of the mesh, always.
pub(super) fn mutual(at: &At<'_>, socket: TransportSocket) -> Result<(), Refusal> {
    let config = typed(at, socket)?;
    let at = &at.field("typed_config");
    let context: DownstreamTlsContext = unpack(at, type_url::DOWNSTREAM_TLS, &config)?;
    refuse!(at, context; require_sni, ocsp_staple_policy, session_ticket_keys_type);
    pass_over!(at, context; disable_stateful_session_resumption, session_timeout, prefer_client_ciphers);
    if !context.require_client_certificate.is_some_and(|required| required.value) {
        return Err(at.field("require_client_certificate").invalid("has to be true: a mesh peer proves who it is"));
    }
    context.common_tls_context.map_or(Ok(()), |common| common_context(&at.field("common_tls_context"), common))
}

/// Endpoints outside the mesh are dialled in plaintext; TLS to them is not supported yet.
pub(super) fn plaintext(at: &At<'_>, socket: TransportSocket) -> Result<(), Refusal> {
    match typed(at, socket)?.type_url.as_str() {
        type_url::RAW_BUFFER => Ok(()),
        _ => Err(at.refuse(Reason::Unsupported)),
    }
}

fn typed(at: &At<'_>, socket: TransportSocket) -> Result<Any, Refusal> {
    let transport_socket::ConfigType::TypedConfig(config) = at.field("typed_config").required(socket.config_type)?;
    Ok(config)
}

fn common_context(at: &At<'_>, common: CommonTlsContext) -> Result<(), Refusal> {
    refuse!(at, common; tls_params, custom_handshaker, custom_tls_certificate_selector);
    pass_over!(at, common;
        tls_certificates, tls_certificate_sds_secret_configs, tls_certificate_provider_instance, alpn_protocols,
        key_log);
    match common.validation_context_type {
        Some(ValidationContextType::ValidationContext(context)) => {
            validation(&at.field("validation_context"), &context)
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let at = &at.field("combined_validation_context");
            let at = &at.field("default_validation_context");
            combined.default_validation_context.map_or(Ok(()), |context| validation(at, &context))
        }
        _ => Ok(()),
    }
}

/// Anything that would let in fewer peers than the whole trust domain.
fn validation(at: &At<'_>, context: &CertificateValidationContext) -> Result<(), Refusal> {
    refuse!(at, context;
        match_typed_subject_alt_names, verify_certificate_hash, verify_certificate_spki, crl, custom_validator_config,
        require_signed_certificate_timestamp, allow_expired_certificate, trust_chain_verification);
    pass_over!(at, context; trusted_ca, ca_certificate_provider_instance);
    Ok(())
}
