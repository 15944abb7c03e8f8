//! What an adapter is called.
use super::AdapterError;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr, sync::Arc};

/// 1 to 128 of `A-Z a-z 0-9 - _ .`, first one a letter or digit. Safe as a file name by construction.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AdapterName(Arc<str>);

impl FromStr for AdapterName {
    type Err = AdapterError;

    fn from_str(text: &str) -> Result<Self, AdapterError> {
        let valid = (1..=128).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        if valid {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(40).collect();
        Err(AdapterError::InvalidName(format!(
            "`{}` is not an adapter name: use 1 to 128 of A-Z, a-z, 0-9, `-`, `_` and `.`, a letter or \
             digit first",
            shown.escape_debug()
        )))
    }
}

impl AdapterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for AdapterName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AdapterName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for AdapterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 over config and weights: the same files are the same version, everywhere.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VersionId(pub [u8; 32]);

impl VersionId {
    /// The id of these files. Each part goes in with its length, so that no two lists of parts collide.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

impl Serialize for VersionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionId({self})")
    }
}

impl FromStr for VersionId {
    type Err = AdapterError;

    fn from_str(text: &str) -> Result<Self, AdapterError> {
        let wrong = || {
            AdapterError::InvalidName("a version is the 64 hexadecimal digits of its hash".into())
        };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut id = [0; 32];
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(id))
    }
}

/// What a request asks for: `name` (its current version) or `name@version`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdapterRef {
    /// Which adapter.
    pub name: AdapterName,
    /// Which version, if not the current one.
    pub version: Option<VersionId>,
}

impl From<AdapterName> for AdapterRef {
    /// Its current version.
    fn from(name: AdapterName) -> Self {
        Self { name, version: None }
    }
}

impl FromStr for AdapterRef {
    type Err = AdapterError;

    fn from_str(text: &str) -> Result<Self, AdapterError> {
        match text.split_once('@') {
            Some((name, version)) => {
                Ok(Self { name: name.parse()?, version: Some(version.parse()?) })
            }
            None => Ok(Self { name: text.parse()?, version: None }),
        }
    }
}

impl fmt::Display for AdapterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["a", "rate", "My-Adapter_v1.2", "0", &"x".repeat(128)] {
            assert!(good.parse::<AdapterName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a\\b", "a b", "é", "a\0", &"x".repeat(129)]
        {
            assert!(bad.parse::<AdapterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let id = VersionId::of(&[b"config", b"weights"]);
        assert_eq!(id.to_string().parse::<VersionId>().expect("hex"), id);
        assert_ne!(id, VersionId::of(&[b"configw", b"eights"]));
        let wanted: AdapterRef = format!("a@{id}").parse().expect("a reference");
        assert_eq!(wanted.version, Some(id));
        assert!("a@12".parse::<AdapterRef>().is_err());
    }
}
