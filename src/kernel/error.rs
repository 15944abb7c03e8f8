//! What a device can fail with.

/// Result of a device operation.
pub type Result<T, E = KernelError> = std::result::Result<T, E>;

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Shapes, indices or dtypes do not fit together; a bug of the caller.
    #[error("{operation}: {detail}")]
    Mismatch {
        /// The operation.
        operation: &'static str,
        /// What disagrees, with both numbers.
        detail: String,
    },
    /// This build or this machine does not have it.
    #[error("{0}")]
    Unsupported(String),
    /// candle's or the driver's.
    #[error(transparent)]
    Device(#[from] candle_core::Error),
}

impl KernelError {
    /// A [`KernelError::Mismatch`].
    pub(crate) fn mismatch(operation: &'static str, detail: impl Into<String>) -> Self {
        Self::Mismatch { operation, detail: detail.into() }
    }
}
