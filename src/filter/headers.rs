//! Changes of heads: Gateway API's `RequestHeaderModifier` and `ResponseHeaderModifier`, Envoy's `*_headers_to_add` and
//! `*_headers_to_remove`.

use http::HeaderMap;

use crate::config::HeaderChange;

/// Makes `changes`, in their order.
pub fn apply(changes: &[HeaderChange], fields: &mut HeaderMap) {
    for change in changes {
        match change {
            HeaderChange::Remove(name) => drop(fields.remove(name)),
            HeaderChange::Append(name, value) => drop(fields.append(name, value.clone())),
            HeaderChange::Overwrite(name, value) => drop(fields.insert(name, value.clone())),
            HeaderChange::AddIfAbsent(name, value) => {
                fields.entry(name).or_insert_with(|| value.clone());
            }
            HeaderChange::OverwriteIfExists(name, value) => {
                if fields.contains_key(name) {
                    fields.insert(name, value.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn each_action_does_what_it_is_called() {
        let (name, new) = (HeaderName::from_static("a"), HeaderValue::from_static("new"));
        let both = || (name.clone(), new.clone());
        let change = |make: fn(HeaderName, HeaderValue) -> HeaderChange| {
            let (name, value) = both();
            make(name, value)
        };
        for (change, from_none, from_two) in [
            (HeaderChange::Remove(name.clone()), &[][..], &[][..]),
            (change(HeaderChange::Append), &["new"], &["1", "2", "new"]),
            (change(HeaderChange::AddIfAbsent), &["new"], &["1", "2"]),
            (change(HeaderChange::Overwrite), &["new"], &["new"]),
            (change(HeaderChange::OverwriteIfExists), &[], &["new"]),
        ] {
            for (before, after) in [(&[][..], from_none), (&["1", "2"], from_two)] {
                let mut fields: HeaderMap =
                    before.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect();
                apply(std::slice::from_ref(&change), &mut fields);
                assert_eq!(fields.get_all(&name).iter().collect::<Vec<_>>(), after, "{change:?} of {before:?}");
            }
        }
    }
}
