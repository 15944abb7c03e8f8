//! Everything that can go wrong with an adapter.
use super::{AdapterName, VersionId};
use crate::{
    error::{Classified, ErrorKind},
    gguf::GgufError,
};
use std::{io, sync::Arc};

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Nobody published it.
    #[error("adapter `{0}` does not exist")]
    NotFound(AdapterName),
    /// The name has versions, but not this one.
    #[error("adapter `{0}` has no version {1}")]
    VersionNotFound(AdapterName, VersionId),
    /// Not a name: what a name is stands in the text.
    #[error("{0}")]
    InvalidName(String),
    /// The name is taken, or the compare-and-swap lost.
    #[error("adapter `{name}` exists at version {current}")]
    Conflict {
        /// Which.
        name: AdapterName,
        /// What it is now.
        current: VersionId,
    },
    /// The files do not make an adapter for this model.
    #[error("{0}")]
    Invalid(String),
    /// The files ask for something this build does not serve; it would be half applied otherwise.
    #[error("{0}")]
    Unsupported(String),
    /// The upload has none of the forms that are read.
    #[error("{0}")]
    UnknownForm(String),
    /// The archive cannot be read to its end.
    #[error("{0}")]
    BrokenArchive(String),
    /// The archive has what no adapter needs and an attacker would send.
    #[error("{0}")]
    UnsafeArchive(String),
    /// Over a limit.
    #[error("the adapter has at least {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size.
        bytes: u64,
        /// Limit.
        limit: u64,
    },
    /// As many as the server holds.
    #[error("{0} adapters are published, which is the limit: retire one, or raise --max-adapters")]
    TooMany(usize),
    /// As many requests as the name's terms allow are worked on.
    #[error(
        "adapter `{name}` works on {limit} requests at one time, as many as it may; try again when one has ended"
    )]
    Busy {
        /// Which.
        name: AdapterName,
        /// Its `max_requests`.
        limit: u32,
    },
    /// As many requests have started as the name's terms allow.
    #[error(
        "adapter `{name}` takes {limit} requests a minute, a tenth of them at once; try again in \
         {retry_after} s"
    )]
    RateLimited {
        /// Which.
        name: AdapterName,
        /// Its `requests_per_minute`.
        limit: u32,
        /// Seconds until it takes the next one.
        retry_after: u64,
    },
    /// Terms that cannot be kept.
    #[error("{reason}")]
    InvalidTerms {
        /// The field.
        field: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The store can be read only; the text says what to do.
    #[error("{0}")]
    ReadOnly(String),
    /// The store cannot be reached or refuses; the text says which, why and what to do.
    #[error("{0}")]
    Unreachable(String),
    /// The store has a record of it, and not what it names.
    #[error("version {version} cannot be read from the store: {reason}; publish it again")]
    Lost {
        /// Which.
        version: VersionId,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is nothing to roll back to.
    #[error("adapter `{0}` has no version before the current one")]
    NoFormerVersion(AdapterName),
    /// Somebody else changes the same name all the time.
    #[error("adapter `{0}` was changed by others at the same time: try again")]
    Contended(AdapterName),
    /// A read that others waited for too, or that failed a moment ago, failed.
    #[error("{0}")]
    Unreadable(#[source] Arc<AdapterError>),
    /// The disk.
    #[error("{}", store_failure(.0))]
    Store(#[from] io::Error),
}

fn store_failure(error: &io::Error) -> &'static str {
    if is_full(error) {
        return "the disk for adapters and uploads is full: make room where the server runs, then try again";
    }
    "the adapter store failed"
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<GgufError> for AdapterError {
    fn from(error: GgufError) -> Self {
        Self::Invalid(format!("{} {}", error.place, error.detail))
    }
}

impl AdapterError {
    /// The adapter that takes no more, or is not there.
    pub fn name(&self) -> Option<&AdapterName> {
        match self {
            Self::NotFound(name) | Self::Busy { name, .. } | Self::RateLimited { name, .. } => {
                Some(name)
            }
            _ => None,
        }
    }

    /// Says of an error about files that nobody has seen whose they are.
    pub(super) fn in_peft_words(self) -> Self {
        let explained = |reason| format!("{reason} (the GGUF file's contents in PEFT's words)");
        match self {
            Self::Invalid(reason) => Self::Invalid(explained(reason)),
            Self::Unsupported(reason) => Self::Unsupported(explained(reason)),
            other => other,
        }
    }

    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }

    pub(super) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }
}

impl Classified for AdapterError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::VersionNotFound(..) => ErrorKind::NotFound,
            Self::Conflict { .. }
            | Self::TooMany(_)
            | Self::ReadOnly(_)
            | Self::Contended(_)
            | Self::NoFormerVersion(_) => ErrorKind::Conflict,
            Self::InvalidName(_)
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::InvalidTerms { .. }
            | Self::UnknownForm(_)
            | Self::BrokenArchive(_)
            | Self::UnsafeArchive(_) => ErrorKind::InvalidRequest,
            Self::Busy { .. } | Self::RateLimited { .. } => ErrorKind::Overloaded,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Unreachable(_) => ErrorKind::Unavailable,
            Self::Unreadable(error) => error.kind(),
            Self::Store(error) if is_full(error) => ErrorKind::Unavailable,
            Self::Lost { .. } | Self::Store(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "adapter_not_found",
            Self::VersionNotFound(..) => "adapter_version_not_found",
            Self::InvalidName(_) => "invalid_adapter_name",
            Self::Conflict { .. } => "adapter_conflict",
            Self::Invalid(_) => "invalid_adapter",
            Self::Unsupported(_) => "unsupported_adapter",
            Self::UnknownForm(_) => "unknown_upload_form",
            Self::BrokenArchive(_) => "broken_archive",
            Self::UnsafeArchive(_) => "unsafe_archive",
            Self::TooLarge { .. } => "adapter_too_large",
            Self::TooMany(_) => "too_many_adapters",
            Self::Busy { .. } => "adapter_busy",
            Self::RateLimited { .. } => "adapter_rate_limited",
            Self::InvalidTerms { .. } => "invalid_adapter_terms",
            Self::ReadOnly(_) => "adapter_store_read_only",
            Self::Lost { .. } => "adapter_lost",
            Self::Contended(_) => "adapter_contended",
            Self::NoFormerVersion(_) => "no_former_version",
            Self::Unreadable(error) => error.code(),
            Self::Store(error) if is_full(error) => "adapter_store_full",
            Self::Unreachable(_) | Self::Store(_) => "adapter_store_failed",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidTerms { field, .. } => Some(field),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_and_any_other_failure_of_it_is_not() {
        let full = AdapterError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.kind(), full.code()), (ErrorKind::Unavailable, "adapter_store_full"));
        assert!(full.to_string().contains("make room"), "{full}");
        let failed = AdapterError::from(io::Error::other("/secret"));
        assert_eq!((failed.kind(), failed.code()), (ErrorKind::Internal, "adapter_store_failed"));
        assert!(!failed.to_string().contains("secret"), "{failed}");
    }
}
