//! The question: who calls, whom, and with what.

use anyhow::{Context as _, bail};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header::HOST, request};
use pillion_wire::name::Destination;

/// A request that nobody sends.
#[derive(Debug)]
pub(super) struct Question {
    /// The calling Workload, with its namespace where that was said; `None`: a caller without a sidecar.
    pub(super) from: Option<(Option<String>, String)>,
    /// Whom it calls.
    pub(super) destination: Destination,
    /// What the sidecar gets.
    pub(super) request: request::Parts,
}

/// What `--from` calls somebody outside the mesh.
const OUTSIDE: &str = "outside";

impl Question {
    pub(super) fn new(
        from: &str,
        to: Option<&str>,
        method: &str,
        url: &str,
        headers: &[String],
    ) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is neither a URL nor a path"))?;
        let method = Method::from_bytes(method.as_bytes()).with_context(|| format!("{method:?} is no method"))?;
        let named = match (to, uri.authority()) {
            (Some(to), _) => to.to_owned(),
            (None, Some(authority)) => authority.to_string(),
            (None, None) => bail!("whom is it for? Say --to HOST:PORT, or a whole URL"),
        };
        let destination = destination(&named)?;
        let authority = uri.authority().map_or_else(|| named.clone(), ToString::to_string);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut builder = Request::builder().method(method).uri(path).header(HOST, authority);
        for header in headers {
            let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not NAME: VALUE"))?;
            let name: HeaderName = name.trim().parse().with_context(|| format!("{name:?} names no header field"))?;
            let value = HeaderValue::from_str(value.trim()).with_context(|| format!("{header:?} has no such value"))?;
            builder = builder.header(name, value);
        }
        let (request, ()) = builder.body(())?.into_parts();
        let from = (from != OUTSIDE).then(|| match from.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, from.to_owned()),
        });
        Ok(Self { from, destination, request })
    }
}

/// Port 80 if none is said, as HTTP has it.
fn destination(named: &str) -> anyhow::Result<Destination> {
    let with_port = named.parse::<Destination>();
    with_port.or_else(|_no_port| Destination::new(named, 80)).with_context(|| format!("{named:?} is not HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_mean_the_same() {
        let ask = |to, url| Question::new("web", to, "GET", url, &["x-a: 1".to_owned()]).unwrap();
        let (one, other) = (ask(Some("orders.shop:80"), "/a?b=c"), ask(None, "http://orders.shop/a?b=c"));
        assert_eq!(one.destination, other.destination);
        assert_eq!(one.request.uri, other.request.uri);
        assert_eq!(other.request.headers[HOST], "orders.shop");
        assert_eq!(one.request.headers["x-a"], "1");
        assert!(Question::new("web", None, "GET", "/a", &[]).is_err());
        assert!(Question::new("web", None, "G T", "http://a/", &[]).is_err());
        assert!(Question::new("outside", None, "GET", "http://a/", &[]).unwrap().from.is_none());
    }
}
