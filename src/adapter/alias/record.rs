//! An alias as it is kept: what it is, what it was before, and who changed it when.
use super::{AliasError, AliasForm, Target};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Shares that differ by less are equal: sums of weights are rounded.
const SAME_SHARE: f64 = 1e-9;

/// What changed an alias last.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AliasAction {
    /// A client wrote it.
    Put,
    /// A client took the last change back.
    RolledBack,
    /// Its guard took the last change back.
    FlippedBack,
    /// A client removed it.
    Deleted,
}

impl AliasAction {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::RolledBack => "rolled_back",
            Self::FlippedBack => "flipped_back",
            Self::Deleted => "deleted",
        }
    }
}

/// What lies in the store under an alias' name.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AliasRecord {
    /// What it does now.
    pub form: AliasForm,
    /// What it did before the last change, for one call's way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<AliasForm>,
    /// What the last change was.
    pub action: AliasAction,
    /// Who made it.
    pub changed_by: String,
    /// When, in milliseconds since 1970.
    pub changed_at_ms: u64,
    /// Why, where it was nobody's wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AliasRecord {
    /// When it was changed last.
    pub fn changed_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.changed_at_ms)
    }

    /// Whether the last change introduced this target, or gave it a larger share. What a guard has restored is not
    /// watched: two bad forms would take turns for ever.
    pub(super) fn is_new(&self, target: &Target) -> bool {
        let before = self.previous.as_ref().map_or(0.0, |previous| previous.share(target));
        self.action != AliasAction::FlippedBack && self.form.share(target) > before + SAME_SHARE
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // Maps with string keys and finite numbers cannot fail to be written.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// Differs whenever anything of an alias does, its past included: the hash of what is stored.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Revision([u8; 8]);

impl Revision {
    pub(super) fn of(stored: &[u8]) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(stored)[..8]);
        Self(first)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

impl FromStr for Revision {
    type Err = AliasError;

    fn from_str(text: &str) -> Result<Self, AliasError> {
        let wrong = || AliasError::invalid("revision", "a revision has 16 hexadecimal digits");
        let digits = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_as_it_is_written() {
        let revision = Revision::of(b"anything");
        assert_eq!(revision.to_string().parse::<Revision>().expect("digits"), revision);
        for wrong in ["", "12", "+123456789abcdef", "00000000000000000"] {
            assert!(wrong.parse::<Revision>().is_err(), "{wrong}");
        }
    }
}
