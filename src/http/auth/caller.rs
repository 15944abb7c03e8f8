//! Who sent a request, and what that lets them use.
use super::keys::KeyHash;
use crate::adapter::AdapterTerms;

/// Behind every guarded route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::http) enum Caller {
    /// Somebody with an admin key.
    Admin(KeyHash),
    /// Somebody on this machine, on an admin route of a server without admin keys.
    Local,
    /// A client, with the key that it sent.
    Client(Option<KeyHash>),
    /// Somebody whose key nobody knows but some adapters: for these only.
    Guest(KeyHash),
}

impl Caller {
    /// Whether an adapter on these terms is there for them.
    pub(in crate::http) fn may_use(&self, terms: &AdapterTerms) -> bool {
        match self {
            Self::Admin(_) | Self::Local => true,
            Self::Client(_) if !terms.is_private() => true,
            Self::Client(key) => key.is_some_and(|key| terms.names_key(&key)),
            Self::Guest(key) => terms.names_key(key),
        }
    }

    /// Whether the base is.
    pub(in crate::http) fn may_use_base(&self) -> bool {
        !matches!(self, Self::Guest(_))
    }

    /// The beginning of their key's hash: enough to tell keys apart, never a key.
    pub(in crate::http) fn key_id(&self) -> Option<String> {
        match self {
            Self::Admin(key) | Self::Client(Some(key)) | Self::Guest(key) => {
                Some(format!("{:08x}", u32::from_be_bytes([key[0], key[1], key[2], key[3]])))
            }
            Self::Local | Self::Client(None) => None,
        }
    }

    /// How the event log calls them.
    pub(in crate::http) fn actor(&self) -> String {
        let nobody = if matches!(self, Self::Local) { "loopback" } else { "client" };
        self.key_id().unwrap_or_else(|| nobody.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_adapter_is_there_for_its_keys_and_for_admins() {
        let own = AdapterTerms { keys: vec!["07".repeat(32)], ..AdapterTerms::default() };
        let public = AdapterTerms::default();
        for (caller, private, open, base) in [
            (Caller::Admin([1; 32]), true, true, true),
            (Caller::Local, true, true, true),
            (Caller::Client(None), false, true, true),
            (Caller::Client(Some([1; 32])), false, true, true),
            (Caller::Client(Some([7; 32])), true, true, true),
            (Caller::Guest([7; 32]), true, false, false),
            (Caller::Guest([1; 32]), false, false, false),
        ] {
            let may = (caller.may_use(&own), caller.may_use(&public), caller.may_use_base());
            assert_eq!(may, (private, open, base), "{caller:?}");
        }
    }

    #[test]
    fn the_log_knows_a_key_by_eight_digits_of_its_hash() {
        assert_eq!(Caller::Admin([0xab; 32]).actor(), "abababab");
        assert_eq!(Caller::Local.actor(), "loopback");
    }
}
