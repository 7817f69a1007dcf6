//! The syntax of Kubernetes names: DNS labels and DNS subdomains.
//!
//! Namespaces and Services are labels, service accounts and Workloads are
//! subdomains; see <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
//! Upper-case letters are refused rather than folded: such a name exists in
//! exactly one spelling.

/// Whether `text` is a DNS label: 1 to 63 of `[a-z0-9-]`, with no hyphen at
/// either end (RFC 1123 section 2.1, lower case only).
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= 63
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `text` is a DNS subdomain: labels joined by dots, 253 bytes at most
/// (RFC 1123 section 2.1, lower case only).
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "0", "orders", "orders-1", "1-a", &"a".repeat(63)] {
            assert!(is_label(good), "{good:?}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", "a b", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad:?}");
        }
    }

    #[test]
    fn subdomains_are_labels_joined_by_dots() {
        assert!(is_subdomain("orders"));
        assert!(is_subdomain("build.robot"));
        for bad in ["", ".", "a.", ".a", "a..b", &["a"; 128].join(".")] {
            assert!(!is_subdomain(bad), "{bad:?}");
        }
    }
}
