//! Which names are worth a question to the control plane.

/// The zone that Services have their names in.
const CLUSTER_DOMAIN: &str = ".cluster.local";

/// Can `name` be one of the mesh, by its shape? In lower case; a dot at the end does not matter.
///
/// `svc`, `svc.ns`, `svc.ns.svc` and `pod.svc.ns.svc`, the two last also with `.cluster.local`. Names of the rest of
/// the world mostly have another shape, and so never wait for the control plane.
pub(super) fn may_be_of_mesh(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let within = name.strip_suffix(CLUSTER_DOMAIN);
    let mut labels = within.unwrap_or(name).rsplit('.');
    let labels = [labels.next(), labels.next(), labels.next(), labels.next(), labels.next()];
    match labels {
        _ if name.split('.').any(str::is_empty) => false,
        [Some("svc"), Some(_), Some(_), _, None] => true,
        [Some("localhost"), ..] => false, // RFC 6761, section 6.3
        [Some(_), _, None, ..] => within.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_mesh_are_told_by_their_shape() {
        for (name, expected) in [
            ("orders", true),
            ("orders.", true),
            ("orders.shop", true),
            ("orders.shop.svc", true),
            ("orders.shop.svc.", true),
            ("orders.shop.svc.cluster.local", true),
            ("orders.shop.svc.cluster.local.", true),
            ("db-0.db.shop.svc", true),
            ("db-0.db.shop.svc.cluster.local", true),
            ("orders.svc", true), // a namespace called svc
            ("", false),
            (".", false),
            ("orders..svc", false),
            ("www.google.com", false),
            ("www.google.com.", false),
            ("a.b.google.com", false),
            ("localhost", false),
            ("db.localhost", false),
            ("orders.cluster.local", false),
            ("orders.shop.cluster.local", false),
            ("a.b.c.d.svc", false),
            ("www.google.com.shop.svc.cluster.local", false), // what a search list makes of it
            ("7.2.0.192.in-addr.arpa", false),
        ] {
            assert_eq!(may_be_of_mesh(name), expected, "{name}");
        }
    }
}
