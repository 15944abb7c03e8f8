//! Why a base model cannot be served. Shown to whoever starts the server, so each says what to do.
use crate::{gguf::GgufError, kernel::KernelError};
use std::{io, path::PathBuf};

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// What was named is no model this build can find.
    #[error("model `{model}`: {detail}")]
    Source {
        /// As given.
        model: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A key of `config.json` that cannot be honoured. Ignoring it would give wrong numbers.
    #[error("config.json: `{field}` {detail}")]
    Config {
        /// The key, with the keys above it.
        field: String,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// Keys of `config.json` that nobody reads.
    #[error(
        "config.json: this build does not know {fields}; remove what does not change the model's results"
    )]
    UnknownConfig {
        /// Each with its value.
        fields: String,
    },
    /// A weight is missing, left over, or not what the configuration says.
    #[error("{origin}: tensor `{name}` {detail}")]
    Tensor {
        /// The file or directory.
        origin: String,
        /// The tensor.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A file does not hold what its name says.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The hub.
    #[error("hub model `{id}`: {detail}")]
    Hub {
        /// As given.
        id: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The device.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl From<GgufError> for ModelError {
    fn from(error: GgufError) -> Self {
        Self::file(error.place, error.detail)
    }
}

impl ModelError {
    /// A [`ModelError::Config`].
    pub(crate) fn config(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Config { field: field.into(), detail: detail.into() }
    }

    /// A [`ModelError::File`].
    pub(crate) fn file(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::File { path: path.into(), detail: detail.into() }
    }
}
