//! An answer that needs no application.

/// `spec.directResponse` (Envoy `DirectResponseAction`): every request gets this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Often empty; 4 KiB at most.
    pub body: String,
}
