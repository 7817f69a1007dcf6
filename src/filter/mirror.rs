//! Copies of requests: Gateway API's `RequestMirror`, Envoy's `request_mirror_policies`.

/// What the receiver of a copy is told that it is called: `orders.shop:80` becomes `orders.shop-shadow:80`, so that its
/// logs can be told from those of real requests (Envoy `RequestMirrorPolicy`).
pub fn shadow(authority: &str) -> String {
    const SUFFIX: &str = "-shadow";
    if authority.starts_with('[') || authority.is_empty() {
        return authority.to_owned(); // An address cannot have one, and what is not there neither.
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => format!("{host}{SUFFIX}:{port}"),
        None => format!("{authority}{SUFFIX}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_stands_before_the_port() {
        for (authority, expected) in
            [("a.b", "a.b-shadow"), ("a.b:80", "a.b-shadow:80"), ("[::1]:80", "[::1]:80"), ("", "")]
        {
            assert_eq!(shadow(authority), expected);
        }
    }
}
