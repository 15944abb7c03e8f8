//! On which terms a name is served: its owner's wishes, kept with it over versions and restarts.
use super::AdapterError;
use serde::{Deserialize, Serialize};

/// See each field. A new name has the default ones.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterTerms {
    /// Stays in host memory and, once there, in its adapter slot.
    pub pin: bool,
    /// Its part of the machine when several adapters want all of it: twice the share, twice the tokens.
    pub share: f32,
    /// Most requests at one time, waiting and running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Most requests that start in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// SHA-256 of the API keys that may use it, in hexadecimal digits; with none of them everybody may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Versions that are kept, the current one included; unset, as many as the server keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<usize>,
}

impl Default for AdapterTerms {
    fn default() -> Self {
        Self {
            pin: false,
            share: 1.0,
            max_requests: None,
            requests_per_minute: None,
            keys: Vec::new(),
            keep_versions: None,
        }
    }
}

impl AdapterTerms {
    /// Every field's name.
    pub const FIELDS: [&str; 6] =
        ["pin", "share", "max_requests", "requests_per_minute", "keys", "keep_versions"];

    /// Largest share.
    pub const MAX_SHARE: f32 = 1e6;

    /// Whether they can be kept.
    ///
    /// # Errors
    /// [`AdapterError::InvalidTerms`] with the field that is wrong.
    pub fn check(&self) -> Result<(), AdapterError> {
        let wrong = |field, must| {
            let reason = format!("`{field}` must be {must}");
            Err(AdapterError::InvalidTerms { field, reason })
        };
        if !(self.share > 0.0 && self.share <= Self::MAX_SHARE) {
            return wrong("share", "more than 0 and at most 1000000");
        }
        let counts = [
            ("max_requests", self.max_requests.map(u64::from)),
            ("requests_per_minute", self.requests_per_minute.map(u64::from)),
            ("keep_versions", self.keep_versions.map(|versions| versions as u64)),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return wrong(field, "at least 1, or null for no limit");
        }
        if !self.keys.iter().all(|key| is_hash(key)) {
            let must = "a list of SHA-256 hashes of keys, each of 64 hexadecimal digits: \
                        printf %s KEY | sha256sum";
            return wrong("keys", must);
        }
        Ok(())
    }

    /// Whether the key with this SHA-256 may use the name, where none but some may.
    pub fn names_key(&self, hash: &[u8; 32]) -> bool {
        let same = |(byte, digits): (&u8, &[u8])| {
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            digit(0).zip(digit(1)).is_some_and(|(high, low)| high * 16 + low == u32::from(*byte))
        };
        let matches =
            |key: &String| is_hash(key) && hash.iter().zip(key.as_bytes().chunks(2)).all(same);
        self.keys.iter().any(matches)
    }

    /// Whether only the owners of some keys may use the name.
    pub fn is_private(&self) -> bool {
        !self.keys.is_empty()
    }
}

fn is_hash(key: &str) -> bool {
    key.len() == 64 && key.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classified;

    #[test]
    fn terms_that_cannot_be_kept_are_refused_by_the_fields_name() {
        AdapterTerms::default().check().expect("the usual terms");
        let usual = AdapterTerms::default;
        let refused = [
            ("share", AdapterTerms { share: 0.0, ..usual() }),
            ("share", AdapterTerms { share: -1.0, ..usual() }),
            ("share", AdapterTerms { share: f32::NAN, ..usual() }),
            ("share", AdapterTerms { share: f32::INFINITY, ..usual() }),
            ("share", AdapterTerms { share: 1.1e6, ..usual() }),
            ("max_requests", AdapterTerms { max_requests: Some(0), ..usual() }),
            ("requests_per_minute", AdapterTerms { requests_per_minute: Some(0), ..usual() }),
            ("keep_versions", AdapterTerms { keep_versions: Some(0), ..usual() }),
            ("keys", AdapterTerms { keys: vec!["a key".into()], ..usual() }),
            ("keys", AdapterTerms { keys: vec!["g".repeat(64)], ..usual() }),
        ];
        for (field, terms) in refused {
            let error = terms.check().expect_err(field);
            assert_eq!((error.param(), error.code()), (Some(field), "invalid_adapter_terms"));
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn a_hash_is_found_in_either_case() {
        let keys = vec!["00".repeat(32), "Ab".repeat(32)];
        let terms = AdapterTerms { keys, share: 1e6, max_requests: Some(1), ..Default::default() };
        terms.check().expect("valid");
        assert!(terms.names_key(&[0xab; 32]) && terms.names_key(&[0; 32]));
        assert!(!terms.names_key(&[0xba; 32]));
        let broken = AdapterTerms { keys: vec![String::new(), "zz".repeat(32)], ..terms };
        assert!(!broken.names_key(&[0; 32]));
    }
}
