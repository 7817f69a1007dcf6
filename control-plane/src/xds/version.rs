//! Versions of resources: a hash of what the resource says.
//!
//! The same content has the same version in every process of one release, so a
//! client that reconnects after a restart of the control plane is sent nothing
//! that it holds already. The hash is taken of the domain, not of the encoded
//! message, because protobuf maps have no order.

use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};

/// The version of the content `seed`, 16 hexadecimal digits.
pub(super) fn version(seed: &impl Hash) -> String {
    let mut hasher = Sha(Context::new(&SHA256));
    // Another release may translate the same content otherwise.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    seed.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Sha(Context);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finish();
        digest.as_ref().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_has_equal_versions_and_other_content_others() {
        assert_eq!(version(&("a", 1)), version(&("a", 1)));
        assert_ne!(version(&("a", 1)), version(&("a", 2)));
        assert_ne!(version(&("ab", "c")), version(&("a", "bc")));
    }
}
