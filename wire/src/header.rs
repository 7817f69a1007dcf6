//! Header fields that routes may change, and those that they may not: one table for both ends, so that what the
//! control plane accepts no sidecar refuses.

/// Fields that a message cannot do without, or that mean one connection only (RFC 9110, section 7.6.1): who forwards a
/// message says them, and nobody else.
const FIXED: [&str; 11] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of the mesh itself begin so.
const MESH_PREFIX: &str = "x-pillion-";

/// Why a route may not set, add or remove the field `name`. `None`: it may.
///
/// Whether it is a name at all is not looked at here. In any case of letters.
#[must_use]
pub fn protected(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if name.starts_with(':') {
        return Some("is a pseudo header; a rewrite changes the path or the host");
    }
    if name == "host" {
        return Some("is no ordinary field; a rewrite changes the host");
    }
    if name.starts_with(MESH_PREFIX) || name == "x-forwarded-client-cert" {
        return Some("is a field that only sidecars set");
    }
    FIXED.contains(&name.as_str()).then_some("concerns one connection or one message, not a route")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_hops_and_our_own_fields_are_not_for_routes() {
        for name in [":path", ":authority", "Host", "Connection", "TE", "Content-Length", "X-Pillion-Port", "upgrade"] {
            assert!(protected(name).is_some(), "{name}");
        }
        for name in ["x-env", "Server", "Authorization", "x-forwarded-for", "cookie", "content-type"] {
            assert_eq!(protected(name), None, "{name}");
        }
    }
}
