//! What an alias may stand for.
use crate::adapter::{AdapterError, AdapterName, AdapterRef};
use std::{fmt, str::FromStr};

/// How the base is written where its own name may change; no adapter can be called so.
const BASE: &str = "__base_model__";

/// The base model, or an adapter: its current version, or one version for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// The base model itself.
    Base,
    /// `name` or `name@version`.
    Adapter(AdapterRef),
}

impl Target {
    /// Reads what a client wrote; `base` is what this server calls its base model.
    ///
    /// # Errors
    /// [`AdapterError::InvalidName`].
    pub fn read(text: &str, base: &str) -> Result<Self, AdapterError> {
        if text == base { Ok(Self::Base) } else { text.parse() }
    }

    /// As clients write it.
    pub fn shown(&self, base: &str) -> String {
        match self {
            Self::Base => base.to_owned(),
            Self::Adapter(wanted) => wanted.to_string(),
        }
    }

    /// The adapter as requests ask for it.
    pub fn adapter_ref(&self) -> Option<AdapterRef> {
        match self {
            Self::Base => None,
            Self::Adapter(wanted) => Some(wanted.clone()),
        }
    }

    /// The adapter's name, whatever its version.
    pub fn adapter(&self) -> Option<&AdapterName> {
        match self {
            Self::Base => None,
            Self::Adapter(wanted) => Some(&wanted.name),
        }
    }
}

impl FromStr for Target {
    type Err = AdapterError;

    fn from_str(text: &str) -> Result<Self, AdapterError> {
        if text == BASE { Ok(Self::Base) } else { Ok(Self::Adapter(text.parse()?)) }
    }
}

impl fmt::Display for Target {
    /// As it is stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str(BASE),
            Self::Adapter(wanted) => wanted.fmt(f),
        }
    }
}
