//! Why a measurement gives no figures.
use crate::{kernel::KernelError, model::ModelError};
use std::{io, path::PathBuf};

/// What went wrong, in words for the one who started it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The server does not answer, or not as it should.
    #[error("{url}: {detail}")]
    Server {
        /// The server.
        url: String,
        /// What it said, or what to do.
        detail: String,
    },
    /// The model.
    #[error("the model cannot be used")]
    Model(#[from] ModelError),
    /// The device, or what it was asked for.
    #[error("the kernels cannot do it")]
    Kernel(#[from] KernelError),
    /// A file.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A closed pipe, or no threads.
    #[error("the operating system refused")]
    Io(#[from] io::Error),
}

impl BenchError {
    /// With the file at fault.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
