//! Everything that can go wrong with an alias.
use super::Revision;
use crate::{
    adapter::{AdapterError, AdapterName},
    error::{Classified, ErrorKind},
};

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// Nobody has put it.
    #[error("alias `{0}` does not exist")]
    NotFound(AdapterName),
    /// A field that cannot be.
    #[error("{message}")]
    Invalid {
        /// The path to it.
        field: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The name means something else already.
    #[error("{0}")]
    Taken(String),
    /// A target that is not there.
    #[error("`{field}`: adapter `{target}` does not exist; publish it first")]
    UnknownTarget {
        /// The path to it.
        field: String,
        /// As it was asked for.
        target: String,
    },
    /// The compare-and-swap lost.
    #[error("alias `{name}` is at revision {current}")]
    Conflict {
        /// Which.
        name: AdapterName,
        /// What it is now.
        current: Revision,
    },
    /// There is no form before this one.
    #[error("alias `{0}` has only ever been what it is now: there is nothing to roll back to")]
    NothingBefore(AdapterName),
    /// Every target of an alias has been retired.
    #[error(
        "alias `{alias}` has no target left: `{target}` is not published; publish it, or give the alias another target"
    )]
    NoTargetLeft {
        /// The alias.
        alias: AdapterName,
        /// The target that was drawn first.
        target: String,
    },
    /// An adapter that an alias sends requests to.
    #[error(
        "adapter `{adapter}` is a target of alias `{alias}`: change the alias first, or say `?force=true`"
    )]
    InUse {
        /// What was to be retired.
        adapter: AdapterName,
        /// An alias that names it.
        alias: AdapterName,
    },
    /// As many as the server holds.
    #[error("there are {0} aliases, which is the limit: delete one")]
    TooMany(usize),
    /// Somebody else changed it again and again in between.
    #[error("alias `{0}` keeps changing; try again")]
    Busy(AdapterName),
    /// Where aliases are kept.
    #[error(transparent)]
    Store(#[from] AdapterError),
}

impl AliasError {
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

impl Classified for AliasError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoTargetLeft { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } | Self::UnknownTarget { .. } => ErrorKind::InvalidRequest,
            Self::Taken(_)
            | Self::Conflict { .. }
            | Self::NothingBefore(_)
            | Self::InUse { .. }
            | Self::TooMany(_)
            | Self::Busy(_) => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "alias_not_found",
            Self::Invalid { .. } => "invalid_alias",
            Self::Taken(_) => "name_taken",
            Self::UnknownTarget { .. } => "alias_target_unknown",
            Self::Conflict { .. } => "alias_conflict",
            Self::NothingBefore(_) => "alias_has_no_past",
            Self::NoTargetLeft { .. } => "alias_target_not_found",
            Self::InUse { .. } => "adapter_in_use",
            Self::TooMany(_) => "too_many_aliases",
            Self::Busy(_) => "alias_busy",
            Self::Store(error) => error.code(),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } | Self::UnknownTarget { field, .. } => Some(field),
            _ => None,
        }
    }
}
