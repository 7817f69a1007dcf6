//! What happens to requests that nobody can take.

use super::{FALLBACK_METADATA, in_range, number, object};
use crate::mesh::{MeshError, ours};
use crate::name::ServicePort;
use crate::xds::core::Metadata;
use crate::xds::{ListValue, Struct, Value, value::Kind};

/// What happens to requests that none of their backend's endpoints can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fallback {
    /// Who is asked instead, in this order.
    pub backends: Vec<ServicePort>,
    /// What is answered when none of them can take it either: status and body. `None`: why it failed.
    pub response: Option<(u16, String)>,
}

impl Fallback {
    /// The metadata of a route.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let names = self.backends.iter().map(|name| Value { kind: Some(Kind::StringValue(name.to_string())) });
        let mut fields = vec![("clusters", Kind::ListValue(ListValue { values: names.collect() }))];
        if let Some((status, body)) = &self.response {
            fields.extend([("status", number((*status).into())), ("body", Kind::StringValue(body.clone()))]);
        }
        object(fields)
    }

    /// Reads a route's metadata; `None` when it has no fallback.
    ///
    /// # Errors
    /// When a name is none of a cluster, or the status none of a final response.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, MeshError> {
        let Some(fields) = ours(metadata, FALLBACK_METADATA)? else { return Ok(None) };
        let wrong = || fields.missing("clusters", "list of names of clusters");
        let name = |value: &Value| match &value.kind {
            Some(Kind::StringValue(name)) => name.parse().map_err(|_no_name| wrong()),
            _ => Err(wrong()),
        };
        let backends = match fields.kind("clusters") {
            None => Vec::new(),
            Some(Kind::ListValue(list)) => list.values.iter().map(name).collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong()),
        };
        let status =
            fields.integer("status")?.map(|status| in_range(&fields, "status", status, 200..=599)).transpose()?;
        let body = match fields.kind("body") {
            Some(Kind::StringValue(body)) => body.clone(),
            None => String::new(),
            Some(_) => return Err(fields.missing("body", "string")),
        };
        let response = status.and_then(|status| u16::try_from(status).ok()).map(|status| (status, body));
        Ok(Some(Self { backends, response }))
    }
}
